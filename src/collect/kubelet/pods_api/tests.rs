//! The kubelet's socket against fake ones: what it says is read, and whatever else answers there is Unknown with its reason.

use std::path::PathBuf;
use std::time::Duration;

use h2::server::{SendResponse, handshake};
use http::{HeaderMap, Response};
use hyper::body::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;

use super::list::{MAX_ANSWER, MAX_POD, MAX_PODS, PodList};
use super::protobuf::decode_pod;
use super::*;
use crate::collect::host::root::tree_of;
use crate::facts::{Part, PodPhase};

const KUBELET: &str = "/var/lib/kubelet";
const UID: &str = "74dcc96c-be53-45c4-a46f-3809d56e9a65";
const STATIC: &str = "0716741166d0850117b90c3d6688532b";

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// A text or a message.
fn of(field: u64, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(field << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn number(field: u64, value: i64) -> Vec<u8> {
    [varint(field << 3), varint(value.cast_unsigned())].concat()
}

fn entry(field: u64, name: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    of(field, [of(1, name), of(2, value)].concat())
}

fn time(field: u64, seconds: i64) -> Vec<u8> {
    of(field, [number(1, seconds), number(2, 0)].concat())
}

fn pod(uid: &str, name: &str, more: Vec<u8>) -> Vec<u8> {
    [of(1, [of(1, name), of(3, "shop"), of(5, uid)].concat()), more].concat()
}

/// A pod with all that is read, and texts with SECRET in what is not.
fn whole_pod() -> Vec<u8> {
    let metadata = [
        of(1, "db-0"),
        of(2, "SECRET-"),
        of(3, "shop"),
        of(5, UID),
        number(7, 4),
        time(8, 1_763_596_800),
        of(9, ""),
        entry(11, "app", "SECRET-label"),
        entry(12, "kubernetes.io/config.source", "api"),
        entry(12, "barnacle.dev/mute", "OomKill"),
        entry(12, "note", "SECRET-annotation"),
        entry(12, "bytes", [0xff, 0xfe]),
        of(13, [of(1, "StatefulSet"), of(3, "db"), of(4, "5"), of(5, "apps/v1"), number(6, 1), number(7, 1)].concat()),
        of(17, of(1, "SECRET-manager")),
    ];
    let amounts = |memory: &str, storage: &str| {
        [
            entry(1, "ephemeral-storage", of(1, storage)),
            entry(2, "memory", of(1, memory)),
            entry(2, "cpu", of(1, "250m")),
            entry(2, "nvidia.com/gpu", of(1, "SECRET-1")),
        ]
        .concat()
    };
    let container = [
        of(1, "db"),
        of(2, "SECRET-image"),
        of(3, "SECRET-command"),
        of(4, "--password=SECRET-argument"),
        of(6, number(3, 5432)),
        of(6, number(3, 9100)),
        of(7, [of(1, "PASSWORD"), of(2, "SECRET-environment")].concat()),
        of(8, amounts("512Mi", "4Gi")),
        of(11, of(1, of(2, of(1, "SECRET-path")))),
        of(12, [of(1, of(1, of(1, "SECRET-hook"))), of(2, of(4, number(1, 15)))].concat()),
        of(19, of(3, of(1, "SECRET-from"))),
    ];
    let sidecar = [of(1, "proxy"), of(8, amounts("64Mi", "1Gi")), of(24, "Always")];
    let selector = of(
        1,
        [
            of(1, [of(1, "zone"), of(3, "SECRET-zone")].concat()),
            of(2, [of(1, "metadata.name"), of(2, "In"), of(3, "node-1")].concat()),
        ]
        .concat(),
    );
    let spec = [
        of(1, [of(1, "data"), of(2, of(10, of(1, "data-db-0")))].concat()),
        of(1, [of(1, "scratch"), of(2, of(29, ""))].concat()),
        of(1, [of(1, "tmp"), of(2, of(2, [of(1, ""), of(2, of(1, "2Gi"))].concat()))].concat()),
        of(
            1,
            [of(1, "s3"), of(2, of(28, [of(1, "s3.csi.aws.com"), entry(4, "bucket", "SECRET-bucket")].concat()))]
                .concat(),
        ),
        of(1, [of(1, "key"), of(2, of(6, of(1, "SECRET-volume")))].concat()),
        of(1, [of(1, "plugin"), of(2, of(1, of(1, "/var/lib/kubelet/plugins/d.example.com")))].concat()),
        of(2, container.concat()),
        of(3, "OnFailure"),
        number(4, 45),
        of(8, "SECRET-account"),
        of(10, "node-1"),
        number(11, 1),
        of(14, number(5, 1000)),
        of(15, of(1, "SECRET-pull")),
        of(18, of(1, of(1, selector))),
        of(20, sidecar.concat()),
        number(25, -7),
        entry(32, "memory", of(1, "10Mi")),
        of(34, of(1, of(7, of(2, "SECRET-debug")))),
    ];
    let ended = [number(1, 137), of(4, "SECRET-last-words"), time(5, 1_763_596_805), time(6, 1_763_597_100)].concat();
    let last = of(3, of(7, "containerd://cccccccccccccccc"));
    let status = [
        of(1, "Running"),
        of(2, [of(1, "PodScheduled"), of(2, "True"), of(3, ""), time(4, 1_763_596_802)].concat()),
        of(6, "10.0.1.7"),
        of(
            8,
            [
                of(1, "db"),
                of(2, of(3, ended)),
                of(3, last),
                of(8, "containerd://bbbbbbbbbbbbbbbb"),
                entry(10, "memory", of(1, "600Mi")),
            ]
            .concat(),
        ),
        of(
            8,
            [
                of(1, "side"),
                of(2, of(1, [of(1, "CrashLoopBackOff"), of(2, "SECRET-waiting")].concat())),
                number(4, 0),
                number(5, 7),
            ]
            .concat(),
        ),
        of(10, [of(1, "proxy"), of(2, of(2, time(1, 1_763_596_804))), of(8, "containerd://aaaaaaaaaaaaaaaa")].concat()),
    ];
    [of(1, metadata.concat()), of(2, spec.concat()), of(3, status.concat())].concat()
}

fn kept(pods: &[Vec<u8>]) -> Pods {
    let mut all = KubeletPods::default();
    pods.iter().for_each(|pod| all.take(decode_pod(pod)));
    all.end()
}

#[test]
fn a_pod_is_read_as_the_api_servers() {
    let pods = kept(&[whole_pod()]);
    assert_eq!(pods.incomplete(), None);
    let pod = pods.get(&UID.to_owned()).unwrap();
    assert_eq!(
        (pod.full_name().as_str(), pod.owner.as_deref(), pod.priority),
        ("shop/db-0", Some("StatefulSet/db"), -7)
    );
    assert_eq!(
        (pod.phase, pod.fs_group, pod.mirrors.as_ref(), pod.deleting),
        (PodPhase::Running, Some(1000), None, None)
    );
    assert_eq!(
        (pod.claims.join(" ").as_str(), pod.inline_drivers.join(" ").as_str()),
        ("data-db-0 db-0-scratch", "s3.csi.aws.com")
    );
    assert_eq!(
        (pod.node.as_deref(), pod.wants.as_deref(), pod.mute.as_deref()),
        (Some("node-1"), Some("node-1"), Some("OomKill"))
    );
    let Part::Known(resources) = &pod.resources else { panic!("{:?}", pod.resources) };
    assert_eq!((resources.memory, resources.running), ((600 + 64 + 10) << 20, 1));
    let Part::Known(storage) = &pod.storage else { panic!("{:?}", pod.storage) };
    assert_eq!((storage.limit, storage.volumes.get("tmp")), (Some(5 << 30), Some(&(2 << 30))));
    let Part::Known(lifecycle) = &pod.lifecycle else { panic!("{:?}", pod.lifecycle) };
    assert_eq!((lifecycle.grace_seconds, lifecycle.pre_stop_seconds), (Some(45), Some(15)));
    assert!(lifecycle.requests_cpu && lifecycle.has_ports && lifecycle.has_readiness_probe && lifecycle.has_pre_stop);
    assert_eq!(pod.changed.unwrap().as_second(), 1_763_597_100);
    assert_eq!(pod.container("bbbbbbbbbbbbbbbb").zip(pod.container("cccccccccccccccc")), Some(("db", "db")));
    let Part::Known(failing) = &pod.failing else { panic!("{:?}", pod.failing) };
    let failing: Vec<_> = failing.iter().map(|of| (of.name.as_str(), of.reason.name(), of.restarts)).collect();
    assert_eq!((failing, pod.serves.join(" ").as_str()), (vec![("side", "CrashLoopBackOff", 7)], "d.example.com"));
    assert!(pod.network.of_host && pod.network.has_address);
    assert_eq!(pod.network.scheduled.unwrap().as_second(), 1_763_596_802);
}

#[test]
fn nothing_of_environments_arguments_and_secrets_is_kept() {
    let bytes = whole_pod();
    let count = bytes.windows(6).filter(|window| window == b"SECRET").count();
    let decoded = decode_pod(&bytes).unwrap().to_string();
    let recorded = serde_json::to_string(&kept(&[bytes])).unwrap();
    assert!(count >= 20 && !decoded.contains("SECRET") && !decoded.contains("PASSWORD"), "{count} {decoded}");
    assert!(recorded.contains("db-0") && !recorded.contains("SECRET"), "{recorded}");
}

/// Pods as Kubernetes 1.34's own code writes them, in protobuf and in JSON.
const WRITTEN: [(&[u8], &str); 2] = [
    (
        include_bytes!("../../../../tests/fuzz/seeds/pods_api/whole"),
        include_str!("../../../../tests/fuzz/seeds/pods_api/whole.json"),
    ),
    (
        include_bytes!("../../../../tests/fuzz/seeds/pods_api/static"),
        include_str!("../../../../tests/fuzz/seeds/pods_api/static.json"),
    ),
];

#[test]
fn protobuf_and_json_of_one_pod_say_the_same() {
    for (bytes, json) in WRITTEN {
        let mut of_json = KubeletPods::default();
        of_json.take(Ok(serde_json::from_str(json).unwrap()));
        let (of_json, of_bytes) = (of_json.end(), kept(&[bytes.to_vec()]));
        assert_eq!(of_json, of_bytes);
        assert!(of_json.len() == 1 && of_json.incomplete().is_none(), "{of_json:?}");
        let recorded = serde_json::to_string(&of_bytes).unwrap();
        assert!(
            !recorded.contains("SECRET") && !decode_pod(bytes).unwrap().to_string().contains("SECRET"),
            "{recorded}"
        );
    }
    assert!(WRITTEN[0].1.matches("SECRET").count() > 20);
}

#[test]
fn a_pod_that_did_not_change_is_held_once() {
    let list = |second: &str| kept(&[pod("1", "one", Vec::new()), pod("2", second, Vec::new())]);
    let mut last = Pods::whole([]);
    let (first, same, other) = (share(list("a"), &mut last), share(list("a"), &mut last), share(list("b"), &mut last));
    assert!(first.is_clone_of(&same) && !first.is_clone_of(&other) && other == list("b"));
    let of = |pods: &Pods, uid: &str| Arc::clone(pods.get(&uid.to_owned()).unwrap());
    assert!(Arc::ptr_eq(&of(&first, "1"), &of(&other, "1")) && !Arc::ptr_eq(&of(&first, "2"), &of(&other, "2")));
}

#[test]
fn a_static_pod_stands_for_itself() {
    let annotations = of(
        1,
        [of(1, "etcd"), of(3, "kube-system"), of(5, STATIC), entry(12, "kubernetes.io/config.source", "file")].concat(),
    );
    let pods = kept(&[annotations]);
    let etcd = pods.get(&STATIC.to_owned()).unwrap();
    assert!(etcd.is_critical() && etcd.node_uid() == STATIC && pods.incomplete().is_none());
}

#[test]
fn a_pod_that_is_not_read_makes_the_list_incomplete() {
    let good = || pod(UID, "a", Vec::new());
    let bad = [
        pod("", "b", Vec::new()),
        vec![0xff; 12],
        of(1, [0xff]),
        [good(), vec![8 << 3 | 3]].concat(),
        pod("u", "c", of(3, of(2, ""))).repeat(2)[..30].to_vec(),
        pod("u", "d", of(3, of(8, "").repeat(20_000))),
        pod("u", "e", of(2, time(25, 3))),
    ];
    for bytes in bad {
        let pods = kept(&[good(), bytes]);
        assert!(pods.len() == 1 && pods.incomplete().is_some(), "{pods:?}");
    }
    assert!(kept(&[good(), good()]).incomplete().unwrap().why.contains("two pods of one UID"));
}

fn message(fields: &[u8]) -> Vec<u8> {
    [vec![0], u32::try_from(fields.len()).unwrap().to_be_bytes().to_vec(), fields.to_vec()].concat()
}

/// What a list hands out when it comes in pieces of this size, and how it ends.
fn listed(bytes: &[u8], size: usize) -> (Vec<Option<Vec<u8>>>, Result<(), Cause>) {
    let mut pods = Vec::new();
    let mut list = PodList::new(|item| {
        pods.push(match item {
            Item::Whole(bytes) => Some(bytes.to_vec()),
            Item::TooLarge => None,
        });
    });
    let fed: Result<(), Unknown> = bytes.chunks(size).try_for_each(|chunk| list.feed(chunk));
    let end = fed.and_then(|()| list.end()).map_err(|why| why.cause);
    (pods, end)
}

#[test]
fn a_list_is_taken_apart_as_it_arrives() {
    let fields = [
        of(1, "one"),
        number(7, 5),
        of(1, ""),
        of(9, "passed over"),
        vec![9 << 3 | 1; 9],
        of(1, vec![7; MAX_POD + 1]),
        of(1, "last"),
    ];
    let bytes = message(&fields.concat());
    let pods = vec![Some(b"one".to_vec()), Some(Vec::new()), None, Some(b"last".to_vec())];
    for size in [1 << 20, 16 << 10, 1000] {
        assert_eq!(listed(&bytes, size), (pods.clone(), Ok(())));
    }
    assert_eq!(listed(&message(b""), 1), (Vec::new(), Ok(())));
}

#[test]
fn what_is_no_list_is_refused() {
    let one = of(1, "one");
    let malformed = [
        Vec::new(),
        vec![0, 0, 0],
        message(&one)[..7].to_vec(),
        [vec![1], message(&one)[1..].to_vec()].concat(),
        [message(&one), message(&one)].concat(),
        [message(&one), vec![0]].concat(),
        message(&of(1, "longer")[..4]),
        message(&[1 << 3 | 3]),
        message(&[0xff; 20]),
        message(&[0x80]),
    ];
    for bytes in malformed {
        for size in [1, 100] {
            assert_eq!(listed(&bytes, size).1, Err(Cause::Malformed), "{bytes:?}");
        }
    }
    let long = u32::try_from(MAX_ANSWER + 1).unwrap().to_be_bytes();
    assert_eq!(listed(&[&[0], &long[..]].concat(), 9).1, Err(Cause::TooLarge));
    let (pods, end) = listed(&message(&of(1, "").repeat(MAX_PODS + 9)), 1 << 14);
    assert_eq!((pods.len(), end), (MAX_PODS + 1, Err(Cause::TooLarge)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), size in 1usize..50) {
        kept(std::slice::from_ref(&bytes));
        let of_list = listed(&message(&bytes), size);
        prop_assert_eq!(&of_list, &listed(&message(&bytes), 1000));
        prop_assert_eq!(listed(&bytes, size), listed(&bytes, 1000));
    }

    #[test]
    fn a_pod_with_a_wrong_byte_or_a_cut_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = whole_pod();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        kept(&[bytes[..at].to_vec(), bytes]);
    }
}

/// A kubelet's socket in a tree of its own, and what reads it.
struct Socket {
    dir: tempfile::TempDir,
    root: Root,
}

impl Socket {
    fn new() -> Self {
        let (dir, root) = tree_of(&[("var/lib/kubelet/pods-api/x", b"")]);
        Self { dir, root: root.into_machine() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("var/lib/kubelet").join(SOCKET)
    }

    fn read(&self) -> Result<Pods, Unknown> {
        read(&self.root, KUBELET)
    }

    /// Serves it: each call is answered so.
    fn serves(answer: impl Fn(SendResponse<Bytes>) + Send + 'static) -> Self {
        let socket = Self::new();
        socket.listen(move |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut connection = handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    assert_eq!(request.uri().path(), "/v1alpha1.Pods/ListPods");
                    assert_eq!(request.headers()["content-type"], "application/grpc");
                    answer(respond);
                }
            }
        });
        socket
    }

    fn listen<F: Future<Output = ()>>(&self, serve: impl FnOnce(UnixListener) -> F + Send + 'static) {
        let path = self.path();
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { serve(UnixListener::from_std(listener).unwrap()).await });
        });
    }
}

fn head() -> Response<()> {
    Response::builder().header("content-type", "application/grpc").body(()).unwrap()
}

fn status(code: &str, said: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", code.parse().unwrap());
    headers.insert("grpc-message", said.parse().unwrap());
    headers
}

/// Answers with these bytes and this status.
fn says(bytes: Vec<u8>, code: &'static str) -> impl Fn(SendResponse<Bytes>) + Send {
    move |mut respond| {
        let mut body = respond.send_response(head(), false).unwrap();
        body.send_data(Bytes::from(bytes.clone()), false).unwrap();
        body.send_trailers(status(code, "")).unwrap();
    }
}

#[test]
fn pods_come_over_the_socket() {
    let many: Vec<u8> = (0..700)
        .flat_map(|n| of(1, pod(&format!("uid-{n}"), &format!("pod-{n}"), of(2, of(2, of(7, vec![b'x'; 2000]))))))
        .collect();
    let bytes = message(&[of(1, whole_pod()), many].concat());
    let pods = Socket::serves(says(bytes, "0")).read().unwrap();
    assert_eq!((pods.len(), pods.incomplete()), (701, None));
    assert_eq!(pods.get(&UID.to_owned()).unwrap().full_name(), "shop/db-0");
}

#[test]
fn an_error_of_the_kubelet_is_given_as_it_is() {
    let errors = [
        ("9", "Kubelet is%20initializing", Cause::Failed, "FAILED_PRECONDITION: \"Kubelet is initializing\""),
        ("12", "", Cause::Unsupported, "UNIMPLEMENTED (expected a kubelet with v1alpha1.Pods, 1.37 or later)"),
        ("14", "gone", Cause::Failed, "UNAVAILABLE"),
        ("7", "no", Cause::Denied, "PERMISSION_DENIED"),
        ("8", "slowly", Cause::Failed, "RESOURCE_EXHAUSTED"),
        ("99", "\u{1b}[31m", Cause::Failed, "an error of gRPC"),
    ];
    for (code, said, cause, expected) in errors {
        let said = said.replace('\u{1b}', "%1b");
        let socket = Socket::serves(move |mut respond| {
            let mut head = head();
            head.headers_mut().extend(status(code, &said));
            respond.send_response(head, true).unwrap();
        });
        let why = socket.read().unwrap_err();
        assert!(why.cause == cause && why.why.contains(expected) && !why.why.contains('\u{1b}'), "{code}: {why}");
    }
    let why = Socket::serves(says(message(&of(1, whole_pod())), "14")).read().unwrap_err();
    assert!(why.why.contains("UNAVAILABLE"), "pods before an error are none: {why}");
}

#[test]
fn what_answers_otherwise_is_refused() {
    let http = |code: u16| {
        Socket::serves(move |mut respond| {
            respond.send_response(Response::builder().status(code).body(()).unwrap(), true).unwrap();
        })
    };
    let without_status = Socket::serves(|mut respond| {
        let mut body = respond.send_response(head(), false).unwrap();
        body.send_data(Bytes::from(message(&of(1, whole_pod()))), true).unwrap();
    });
    let half = Socket::serves(says(message(&of(1, whole_pod()))[..200].to_vec(), "0"));
    let reset = Socket::serves(|mut respond| {
        let mut body = respond.send_response(head(), false).unwrap();
        body.send_data(Bytes::from_static(&[0; 3]), false).unwrap();
        body.send_reset(h2::Reason::INTERNAL_ERROR);
    });
    let no_http = Socket::new();
    no_http.listen(|listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let giant = Socket::new();
    giant.listen(|listener| async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // A frame of 16 MiB, of which no byte comes.
            let _ = stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]).await;
        }
    });
    let all = [
        (http(503), Cause::Failed, "HTTP 503"),
        (http(200), Cause::Malformed, "does not speak gRPC"),
        (without_status, Cause::Malformed, "without grpc-status"),
        (half, Cause::Malformed, "in the middle of its message"),
        (reset, Cause::Failed, "ListPods: "),
        (no_http, Cause::Failed, "ListPods: "),
        (giant, Cause::Failed, "ListPods: "),
    ];
    for (socket, cause, expected) in all {
        let why = socket.read().unwrap_err();
        assert!(why.cause == cause && why.why.contains(expected) && why.why.contains(SOCKET), "{expected}: {why}");
    }
}

/// Time stands still until nothing else is to be done.
#[tokio::test(start_paused = true)]
async fn a_kubelet_that_is_silent_or_never_ends_is_given_up() {
    let (silent, _end) = tokio::io::duplex(1 << 10);
    let why = client::list(silent, |_| {}).await.unwrap_err();
    assert!(why.cause == Cause::Stuck && why.why.contains("within 2 s"), "{why}");
    let (slow, end) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let mut connection = handshake(end).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let mut body = respond.send_response(head(), false).unwrap();
                body.send_data(Bytes::from(message(&of(1, vec![0; 9000]))[..9].to_vec()), false).unwrap();
                while body.send_data(Bytes::from_static(&[1]), false).is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    });
    assert_eq!(client::list(slow, |_| {}).await.unwrap_err().cause, Cause::Stuck);
}

#[test]
fn no_socket_or_something_else_in_its_place_is_not_connected_to() {
    let socket = Socket::new();
    let why = socket.read().unwrap_err();
    assert!(why.cause == Cause::Unsupported && why.why.contains("from 1.37 on"), "{why}");
    std::fs::write(socket.path(), "").unwrap();
    assert_eq!(socket.read().unwrap_err().cause, Cause::WrongType);
    std::fs::remove_file(socket.path()).unwrap();
    let other = Socket::serves(says(message(b""), "0"));
    std::os::unix::fs::symlink(other.path(), socket.path()).unwrap();
    assert_eq!(socket.read().unwrap_err().cause, Cause::WrongType, "a link to another socket");
    std::fs::remove_file(socket.path()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(socket.path()).unwrap());
    let why = socket.read().unwrap_err();
    assert!(why.cause == Cause::Failed && why.why.contains("connect to"), "no server listens: {why}");
}

#[test]
fn a_copy_has_a_side_file_or_none() {
    let (_dir, root) = tree_of(&[]);
    let why = read(&root, KUBELET).unwrap_err();
    assert!(why.cause == Cause::Unsupported && why.why.contains(SIDE_FILE), "{why}");
    let list = format!(r#"{{"items":[{{"metadata":{{"name":"a","namespace":"n","uid":"{UID}"}}}},{{"metadata":7}}]}}"#);
    let (_dir, root) = tree_of(&[(SIDE_FILE, list.as_bytes())]);
    let pods = read(&root, KUBELET).unwrap();
    assert!(pods.len() == 1 && pods.incomplete().is_some());
    let (_dir, root) = tree_of(&[(SIDE_FILE, b"[]")]);
    assert_eq!(read(&root, KUBELET).unwrap_err().cause, Cause::Malformed);
}
