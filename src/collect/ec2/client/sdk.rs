//! The calls: each reads, with a filter, in one attempt, with an end. In a build with the feature `ec2`.

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
use aws_sdk_ec2::operation::describe_instances::{DescribeInstancesError, DescribeInstancesOutput};
use aws_sdk_ec2::operation::describe_network_interfaces::{
    DescribeNetworkInterfacesError, DescribeNetworkInterfacesOutput,
};
use aws_sdk_ec2::operation::describe_subnets::{DescribeSubnetsError, DescribeSubnetsOutput};
use aws_sdk_ec2::operation::describe_volumes::{DescribeVolumesError, DescribeVolumesOutput};
use aws_sdk_ec2::types::Filter;
use aws_smithy_http_client::{Builder, tls};
use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use super::super::meter::{Meter, Operation, Outcome};
use super::{Ec2Error, Page, Request, Which, WhichInstances, WhichInterfaces, WhichSubnets};
use crate::facts::{
    BRANCH_DESCRIPTION, CNI_DESCRIPTION, ENI_INSTANCE_TAG, Ec2Attachment, Ec2AttachmentState, Ec2Interface, Ec2Subnet,
    Ec2Volume, Ec2VolumeState, TRUNK_DESCRIPTION, VolumeId, is_ec2_id, names_eni_owner, names_owner, names_subnet_use,
};
use crate::kube_api::{chain, short_message};

/// How long a call may take, with the credentials that it may have to fetch first.
const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(3);
const ATTEMPT: Duration = Duration::from_secs(15);

/// An interface has at most so many security groups.
const MAX_GROUPS: usize = 16;

/// A request as the SDK sends it.
pub trait Call: Request + Sync {
    /// What is answered.
    type Output: Send;
    /// How it is refused.
    type Error: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static;

    /// One page.
    fn send(
        &self,
        sdk: &Sdk,
        size: Option<i32>,
        token: Option<String>,
    ) -> impl Future<Output = Result<Self::Output, SdkError<Self::Error>>> + Send;

    /// What is in it.
    ///
    /// # Errors
    /// Why it is no answer.
    fn read(output: Self::Output) -> Result<Page<Self::Item>, String>;
}

impl Call for Which {
    type Output = DescribeVolumesOutput;
    type Error = DescribeVolumesError;

    fn send(
        &self,
        sdk: &Sdk,
        size: Option<i32>,
        token: Option<String>,
    ) -> impl Future<Output = Result<Self::Output, SdkError<Self::Error>>> + Send {
        let (name, values) = match self {
            Self::Of(instance) => ("attachment.instance-id", vec![instance.clone()]),
            Self::Ids(ids) => ("volume-id", ids.iter().map(|id| id.as_str().to_owned()).collect()),
            Self::State(state) => ("status", vec![state.name().to_owned()]),
        };
        sdk.describe_volumes().filters(filter(name, values)).set_max_results(size).set_next_token(token).send()
    }

    fn read(output: DescribeVolumesOutput) -> Result<Page<Self::Item>, String> {
        let next = next(output.next_token());
        // A list without volumes is a list all the same.
        let listed = output.volumes.as_ref().ok_or("the answer has no list of volumes (volumeSet)")?;
        let volumes = listed.iter().map(|volume| {
            let id = volume.volume_id().unwrap_or_default();
            let known = VolumeId::from_serial(id);
            Ok((known.ok_or_else(|| format!("{:?} is no volume id", short_message(id)))?, convert(volume)))
        });
        Ok(Page { items: volumes.collect::<Result<_, String>>()?, next })
    }
}

impl Call for WhichInterfaces {
    type Output = DescribeNetworkInterfacesOutput;
    type Error = DescribeNetworkInterfacesError;

    fn send(
        &self,
        sdk: &Sdk,
        size: Option<i32>,
        token: Option<String>,
    ) -> impl Future<Output = Result<Self::Output, SdkError<Self::Error>>> + Send {
        let filters = match self {
            Self::Of { instance, vpc } => vec![
                filter(&format!("tag:{ENI_INSTANCE_TAG}"), vec![instance.clone()]),
                filter("vpc-id", vec![vpc.clone()]),
            ],
            Self::Available(vpcs) => {
                let cni = format!("{CNI_DESCRIPTION}*");
                let descriptions = vec![BRANCH_DESCRIPTION.to_owned(), TRUNK_DESCRIPTION.to_owned(), cni];
                vec![
                    filter("status", vec!["available".to_owned()]),
                    filter("vpc-id", vpcs.clone()),
                    filter("description", descriptions),
                ]
            }
        };
        let call = sdk.describe_network_interfaces().set_filters(Some(filters));
        call.set_max_results(size).set_next_token(token).send()
    }

    fn read(output: DescribeNetworkInterfacesOutput) -> Result<Page<Self::Item>, String> {
        let next = next(output.next_token());
        let listed = output.network_interfaces.as_ref();
        let listed = listed.ok_or("the answer has no list of network interfaces (networkInterfaceSet)")?;
        let interfaces = listed.iter().map(|interface| {
            let id = interface.network_interface_id().unwrap_or_default();
            if is_ec2_id(id, "eni") {
                Ok((id.to_owned(), interface_of(interface)))
            } else {
                Err(format!("{:?} is no id of a network interface", short_message(id)))
            }
        });
        Ok(Page { items: interfaces.collect::<Result<_, String>>()?, next })
    }
}

impl Call for WhichInstances {
    type Output = DescribeInstancesOutput;
    type Error = DescribeInstancesError;

    fn send(
        &self,
        sdk: &Sdk,
        size: Option<i32>,
        token: Option<String>,
    ) -> impl Future<Output = Result<Self::Output, SdkError<Self::Error>>> + Send {
        // By a filter: one id that is gone would fail the call for all of them.
        let call = sdk.describe_instances().filters(filter("instance-id", self.0.clone()));
        call.set_max_results(size).set_next_token(token).send()
    }

    fn read(output: DescribeInstancesOutput) -> Result<Page<Self::Item>, String> {
        let next = next(output.next_token());
        let listed = output.reservations.as_ref().ok_or("the answer has no list of instances (reservationSet)")?;
        let instances = listed.iter().flat_map(|reservation| reservation.instances());
        // One that is terminated has no VPC any more.
        let known = |vpc: &&str| is_ec2_id(vpc, "vpc");
        let items = instances.filter_map(|instance| {
            Some((instance.instance_id()?.to_owned(), instance.vpc_id().filter(known)?.to_owned()))
        });
        Ok(Page { items: items.collect(), next })
    }
}

impl Call for WhichSubnets {
    type Output = DescribeSubnetsOutput;
    type Error = DescribeSubnetsError;

    fn send(
        &self,
        sdk: &Sdk,
        size: Option<i32>,
        token: Option<String>,
    ) -> impl Future<Output = Result<Self::Output, SdkError<Self::Error>>> + Send {
        let filters =
            vec![filter("vpc-id", vec![self.vpc.clone()]), filter("availability-zone", vec![self.zone.clone()])];
        sdk.describe_subnets().set_filters(Some(filters)).set_max_results(size).set_next_token(token).send()
    }

    fn read(output: DescribeSubnetsOutput) -> Result<Page<Self::Item>, String> {
        let next = next(output.next_token());
        let listed = output.subnets.as_ref().ok_or("the answer has no list of subnets (subnetSet)")?;
        let subnets = listed.iter().map(|subnet| {
            let id = subnet.subnet_id().filter(|id| is_ec2_id(id, "subnet"));
            let id = id.ok_or_else(|| {
                format!("{:?} is no id of a subnet", short_message(subnet.subnet_id().unwrap_or_default()))
            })?;
            // A count that is missing is none: zero would be a full subnet.
            let free = number(subnet.available_ip_address_count());
            let free = free.ok_or_else(|| format!("the subnet {id} has no availableIpAddressCount"))?;
            let tags = subnet.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())));
            let tags = tags.filter(|(name, _)| names_subnet_use(name));
            let tags = tags.map(|(name, value)| (name.to_owned(), short_message(value))).collect();
            Ok((id.to_owned(), Ec2Subnet { free, tags }))
        });
        Ok(Page { items: subnets.collect::<Result<_, String>>()?, next })
    }
}

fn filter(name: &str, values: Vec<String>) -> Filter {
    Filter::builder().name(name).set_values(Some(values)).build()
}

fn next(token: Option<&str>) -> Option<String> {
    token.filter(|token| !token.is_empty()).map(str::to_owned)
}

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

    /// One page: one call, counted.
    ///
    /// # Errors
    /// As [`Ec2Error`] says.
    pub async fn page<C: Call>(
        &self,
        which: &C,
        size: Option<i32>,
        token: Option<String>,
    ) -> Result<Page<C::Item>, Ec2Error> {
        let call = async {
            let sdk = self.sdk.get_or_init(|| connect(self.region.clone(), self.endpoint.clone())).await;
            which.send(sdk, size, token).await
        };
        let error = |outcome, what: &str| self.error(C::OPERATION, outcome, what);
        let result = match timeout(PATIENCE, call).await {
            Ok(Ok(output)) => C::read(output).map_err(|what| error(Outcome::Malformed, &what)),
            Ok(Err(refused)) => Err(self.refusal(C::OPERATION, &refused)),
            Err(_) => Err(error(Outcome::Timeout, &format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        self.meter.count(C::OPERATION, result.as_ref().map_or_else(|error| error.outcome, |_| Outcome::Ok));
        result
    }

    /// An answer that is none, or none at all.
    pub(in crate::collect::ec2) fn error(&self, operation: Operation, outcome: Outcome, what: &str) -> Ec2Error {
        let whom = self.endpoint.as_deref().unwrap_or(&self.region);
        Ec2Error { outcome, why: format!("EC2 {} ({whom}): {what}", operation.name()) }
    }

    fn refusal<E>(&self, operation: Operation, error: &SdkError<E>) -> Ec2Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().filter(|code| !code.is_empty());
        let outcome = outcome(error, code, status);
        // What our build of the SDK leaves out reads as advice to a developer.
        let said = chain(error);
        if said.contains("cargo feature") {
            let why = "the profile takes its credentials from SSO or another program, which is not understood here; give \
                       them in the environment: eval \"$(aws configure export-credentials --format env)\"";
            return self.error(operation, Outcome::Denied, why);
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
            (Outcome::Denied, Some("UnauthorizedOperation")) => right(operation),
            (Outcome::Denied, Some(_)) => "; are the credentials current, and is the clock right?",
            (Outcome::Denied, None) => {
                "; give the agent a role: the node's, of IRSA or of a pod identity; by hand, AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY or a profile that has them"
            }
            _ if said.contains("UnknownIssuer") => "; are there root certificates in /etc/ssl/certs?",
            (Outcome::Throttled, _) => "; the account exceeds its API rate, so the agent pauses",
            _ => "",
        };
        self.error(operation, outcome, &format!("{said}{hint}"))
    }
}

/// Which right is missing, and to whom.
fn right(operation: Operation) -> &'static str {
    match operation {
        Operation::DescribeVolumes => {
            "; allow the action ec2:DescribeVolumes to the agent's role (daemonset/iam/policy.json)"
        }
        Operation::DescribeNetworkInterfaces => {
            "; allow the action ec2:DescribeNetworkInterfaces to the agent's role (daemonset/iam/policy.json)"
        }
        Operation::DescribeSubnets => {
            "; allow the action ec2:DescribeSubnets to the agent's role (daemonset/iam/policy.json)"
        }
        Operation::DescribeInstances => {
            "; allow the action ec2:DescribeInstances to the role that runs barnacle sweep (daemonset/iam/sweep.json)"
        }
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

fn outcome<E>(error: &SdkError<E>, code: Option<&str>, status: Option<u16>) -> Outcome {
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

fn interface_of(interface: &aws_sdk_ec2::types::NetworkInterface) -> Ec2Interface {
    let tags = interface.tag_set().iter().filter_map(|tag| Some((tag.key()?, tag.value().unwrap_or_default())));
    let ours = tags.filter(|(name, _)| names_eni_owner(name));
    let groups = interface.groups().iter().filter_map(|group| group.group_id()).take(MAX_GROUPS);
    let text = |text: Option<&str>| short_message(text.unwrap_or_default());
    Ec2Interface {
        interface_type: text(interface.interface_type().map(|of| of.as_str())),
        status: text(interface.status().map(|status| status.as_str())),
        description: text(interface.description()),
        subnet: text(interface.subnet_id()),
        vpc: text(interface.vpc_id()),
        zone: text(interface.availability_zone()),
        security_groups: groups.map(short_message).collect(),
        tags: ours.map(|(name, value)| (name.to_owned(), short_message(value))).collect(),
        managed_by: interface.operator().and_then(|operator| operator.principal()).map(short_message),
    }
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
