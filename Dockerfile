# One static binary, and the roots by which it knows EC2: no shell, no libc, nothing to patch but barnacle itself.
#   docker buildx build --platform linux/amd64,linux/arm64 -t REGISTRY/barnacle:0.1.0 --push .
# By the digest of the tag's index for all platforms; docs/security.md ("The build") says how it was found and checked.
# Both are built on the machine's own platform: nothing is emulated.
FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
# The image has its own platform's C compiler (for zstd), and gets the other's.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    $(test "$(dpkg --print-architecture)" = amd64 \
        && echo gcc-aarch64-linux-gnu libc6-dev-arm64-cross || echo gcc-x86-64-linux-gnu libc6-dev-amd64-cross) \
    && rm -r /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY tests tests
COPY daemonset/build daemonset/build
ARG TARGETARCH
RUN daemonset/build "$TARGETARCH" /barnacle

FROM scratch
COPY --from=build /barnacle /barnacle
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# uid 0 owns what is read; the manifest takes every capability from it.
USER 0:0
ENTRYPOINT ["/barnacle"]
CMD ["check"]
