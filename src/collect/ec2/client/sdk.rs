//! The one call: DescribeVolumes with a filter, in one attempt, with an end. In a build with the feature `ec2`.

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region};
use aws_sdk_ec2::Client as Sdk;
use aws_sdk_ec2::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_ec2::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_ec2::error::BoxError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::describe_volumes::{DescribeVolumesError, DescribeVolumesOutput};
use aws_sdk_ec2::types::Filter;
use aws_smithy_http_client::{Builder, tls};
use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::super::meter::{Meter, Outcome};
use super::{Ec2Error, Page, Which};
use crate::facts::{Ec2Attachment, Ec2AttachmentState, Ec2Volume, Ec2VolumeState, VolumeId, names_owner};
use crate::kube_api::{chain, short_message};

/// How long a call may take, with the credentials that it may have to fetch first.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_secs(15);

/// EC2 of one region. Nothing is built before the first call: most nodes never make one.
#[derive(Debug)]
pub struct Client {
    region: String,
    endpoint: Option<String>,
    sdk: OnceCell<Sdk>,
    meter: Arc<Meter>,
}

impl Client {
    /// A client for a region, or for the server that answers in its place.
    #[must_use]
    pub fn new(region: &str, endpoint: Option<&str>, meter: Arc<Meter>) -> Self {
        let endpoint = endpoint.map(str::to_owned);
        Self { region: region.to_owned(), endpoint, sdk: OnceCell::new(), meter }
    }

    /// The region that it asks.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// One page of volumes: one call, counted.
    ///
    /// # Errors
    /// As [`Ec2Error`] says.
    pub async fn page(&self, which: &Which, size: Option<i32>, token: Option<String>) -> Result<Page, Ec2Error> {
        let call = async {
            let sdk = self.sdk.get_or_init(|| connect(self.region.clone(), self.endpoint.clone())).await;
            let call = sdk.describe_volumes().filters(filter(which));
            call.set_max_results(size).set_next_token(token).send().await
        };
        let result = match timeout(PATIENCE, call).await {
            Ok(Ok(output)) => page(output).map_err(|what| self.error(Outcome::Malformed, &what)),
            Ok(Err(error)) => Err(self.refusal(&error)),
            Err(_) => Err(self.error(Outcome::Timeout, &format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        self.meter.count(result.as_ref().map_or_else(|error| error.outcome, |_| Outcome::Ok));
        result
    }

    /// An answer that is none, or none at all.
    pub(in crate::collect::ec2) fn error(&self, outcome: Outcome, what: &str) -> Ec2Error {
        let whom = self.endpoint.as_deref().unwrap_or(&self.region);
        Ec2Error { outcome, why: format!("EC2 DescribeVolumes ({whom}): {what}") }
    }

    fn refusal(&self, error: &SdkError<DescribeVolumesError>) -> Ec2Error {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().filter(|code| !code.is_empty());
        let outcome = outcome(error, code, status);
        // What our build of the SDK leaves out reads as advice to a developer.
        let said = chain(error);
        if said.contains("cargo feature") {
            let why = "the profile takes its credentials from SSO or another program, which is not understood here; give \
                       them in the environment: eval \"$(aws configure export-credentials --format env)\"";
            return self.error(Outcome::Denied, why);
        }
        let said = match (code, status) {
            (Some(code), _) => {
                format!("{code}: {}", short_message(plain(error.message().unwrap_or("no reason given"))))
            }
            (None, Some(status)) if said.contains(NO_END) => format!("HTTP {status}: {NO_END}"),
            (None, Some(status)) => format!("HTTP {status}: {}", short_message(&said)),
            (None, None) => short_message(&said),
        };
        let hint = match (outcome, code) {
            (Outcome::Denied, Some("UnauthorizedOperation")) => {
                "; allow the action ec2:DescribeVolumes to the agent's role (daemonset/iam/policy.json)"
            }
            (Outcome::Denied, Some(_)) => "; are the credentials current, and is the clock right?",
            (Outcome::Denied, None) => {
                "; give the agent a role: the node's, of IRSA or of a pod identity; by hand, AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY or a profile that has them"
            }
            _ if said.contains("UnknownIssuer") => "; are there root certificates in /etc/ssl/certs?",
            (Outcome::Throttled, _) => "; the account exceeds its API rate, so the agent pauses",
            _ => "",
        };
        self.error(outcome, &format!("{said}{hint}"))
    }
}

/// The SDK's client: the credentials of whatever role there is, one attempt, and one TLS stack for all it asks.
async fn connect(region: String, endpoint: Option<String>) -> Sdk {
    let http = Builder::new().tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring)).build_https();
    let times = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).build();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(region))
        .retry_config(RetryConfig::disabled())
        .timeout_config(times);
    let loader = match AppName::new("barnacle") {
        Ok(name) => loader.app_name(name),
        Err(_) => loader,
    };
    let config = loader.load().await;
    let mut ours = aws_sdk_ec2::config::Builder::from(&config).interceptor(ToTheEnd);
    if endpoint.is_some() {
        ours.set_endpoint_url(endpoint);
    }
    Sdk::from_conf(ours.build())
}

const NO_END: &str = "the answer has no end: it was cut off, or is not EC2's (a proxy's?)";

/// An answer that was cut off between two volumes reads as one that has no more.
#[derive(Debug)]
struct ToTheEnd;

impl Intercept for ToTheEnd {
    fn name(&self) -> &'static str {
        "ToTheEnd"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let end = response.body().bytes().map(|body| body.trim_ascii_end().ends_with(b"Response>"));
        if response.status().is_success() && end == Some(false) {
            return Err(NO_END.into());
        }
        Ok(())
    }
}

fn filter(which: &Which) -> Filter {
    let (name, values) = match which {
        Which::Of(instance) => ("attachment.instance-id", vec![instance.clone()]),
        Which::Ids(ids) => ("volume-id", ids.iter().map(|id| id.as_str().to_owned()).collect()),
        Which::State(state) => ("status", vec![state.name().to_owned()]),
    };
    Filter::builder().name(name).set_values(Some(values)).build()
}

const THROTTLED: [&str; 4] = ["RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"];
const DENIED: [&str; 8] = [
    "UnauthorizedOperation",
    "AuthFailure",
    "Blocked",
    "ExpiredToken",
    "InvalidClientTokenId",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
];

fn outcome(error: &SdkError<DescribeVolumesError>, code: Option<&str>, status: Option<u16>) -> Outcome {
    match (error, code, status) {
        // A server that has no time for us says so in more ways than one.
        (_, Some(code), _) if THROTTLED.contains(&code) => Outcome::Throttled,
        (_, _, Some(429 | 503)) => Outcome::Throttled,
        (_, Some(code), _) if DENIED.contains(&code) => Outcome::Denied,
        (SdkError::TimeoutError(_), ..) => Outcome::Timeout,
        (SdkError::DispatchFailure(failure), ..) if failure.is_timeout() => Outcome::Timeout,
        (SdkError::DispatchFailure(failure), ..) if failure.is_io() => Outcome::NoAnswer,
        // What fails before the request is on its way are the credentials.
        (SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_), ..) => Outcome::Denied,
        (SdkError::ResponseError(_), ..) => Outcome::Malformed,
        (_, None, Some(200..=299)) => Outcome::Malformed,
        _ => Outcome::Error,
    }
}

/// What is said to people; the rest can be decoded only by who may do so.
fn plain(message: &str) -> &str {
    message.split("Encoded authorization failure message").next().unwrap_or(message).trim_end()
}

fn page(output: DescribeVolumesOutput) -> Result<Page, String> {
    let next = output.next_token().filter(|token| !token.is_empty()).map(str::to_owned);
    // A list without volumes is a list all the same.
    let listed = output.volumes.as_ref().ok_or("the answer has no list of volumes (volumeSet)")?;
    let volumes = listed.iter().map(|volume| {
        let id = volume.volume_id().unwrap_or_default();
        let known = VolumeId::from_serial(id);
        Ok((known.ok_or_else(|| format!("{:?} is no volume id", short_message(id)))?, convert(volume)))
    });
    Ok(Page { volumes: volumes.collect::<Result<_, String>>()?, next })
}

fn convert(volume: &aws_sdk_ec2::types::Volume) -> Ec2Volume {
    let tags = volume.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())));
    let (ours, others): (Vec<_>, Vec<_>) = tags.partition(|(name, _)| names_owner(name));
    Ec2Volume {
        state: volume.state().map(|state| Ec2VolumeState::named(state.as_str())).unwrap_or_default(),
        volume_type: volume.volume_type().map(|of| of.as_str().to_owned()).unwrap_or_default(),
        size_gib: number(volume.size()).unwrap_or_default(),
        iops: number(volume.iops()),
        throughput: number(volume.throughput()),
        created: volume.create_time().and_then(time),
        zone: volume.availability_zone().unwrap_or_default().to_owned(),
        tags: ours.into_iter().map(|(name, value)| (name.to_owned(), short_message(value))).collect(),
        other_tags: u64::try_from(others.len()).unwrap_or(u64::MAX),
        multi_attach: volume.multi_attach_enabled().unwrap_or_default(),
        attachments: volume.attachments().iter().map(attachment).collect(),
    }
}

fn attachment(attachment: &aws_sdk_ec2::types::VolumeAttachment) -> Ec2Attachment {
    Ec2Attachment {
        instance: attachment.instance_id().unwrap_or_default().to_owned(),
        device: attachment.device().unwrap_or_default().to_owned(),
        state: attachment.state().map(|state| Ec2AttachmentState::named(state.as_str())).unwrap_or_default(),
        attached_at: attachment.attach_time().and_then(time),
        delete_on_termination: attachment.delete_on_termination().unwrap_or_default(),
    }
}

fn number(n: Option<i32>) -> Option<u64> {
    n.and_then(|n| u64::try_from(n).ok())
}

fn time(time: &aws_sdk_ec2::primitives::DateTime) -> Option<Timestamp> {
    Timestamp::from_second(time.secs()).ok()
}
