//! What the API's objects have of a pod's network: branch ENIs, sandboxes, the CNINode.

use serde::Deserialize;

use super::pod::{Amounts, PodSpec, PodStatus, whole};
use super::{ObjectMeta, Raw, short};
use crate::collect::bounded::{AtMost, First};
use crate::collect::kubelet::config::parse_quantity;
use crate::facts::{Cause, CniNode, MAX_VLAN, Part, PodNetwork, PodVlan, SandboxCondition, Unknown};

/// Branch ENIs of one pod that are kept: the controller gives each pod one.
const MAX_ENIS: usize = 16;
/// Branch ENIs of one node that are kept: no instance has more than 120.
const MAX_BRANCHES: usize = 256;
/// No id of an ENI is longer.
const MAX_ID: usize = 64;
/// No message of the kubelet's about a sandbox is longer.
const MAX_MESSAGE: usize = 128;

/// An entry of the annotation, of which older controllers leave fields out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RawEni {
    #[serde(rename = "eniId")]
    id: String,
}

/// Where the CNI finds the ENI: of the annotation's first entry, whatever the others hold.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawVlan {
    if_address: String,
    private_ip: String,
    ipv6_addr: String,
    // The CNI itself writes this one, and reads both.
    #[serde(alias = "vlanID")]
    vlan_id: u16,
}

/// What a pod says of its network.
pub(super) fn pod_network(metadata: &ObjectMeta, spec: &PodSpec, status: &PodStatus) -> PodNetwork {
    let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.pod_eni.as_deref());
    let conditions = status.conditions.as_ref().map(|conditions| conditions.0.as_slice()).unwrap_or_default();
    let condition = |name: &str| conditions.iter().find(|condition| condition.type_ == name);
    let sandbox = condition("PodReadyToStartContainers").map(|condition| SandboxCondition {
        ready: condition.status.parse::<Status>().ok().map(|Status(ready)| ready),
        message: short(condition.message.clone().unwrap_or_default()).chars().take(MAX_MESSAGE).collect(),
        since: condition.last_transition_time,
    });
    let bound = condition("PodScheduled").filter(|condition| condition.status == "True");
    PodNetwork {
        requests: requests(spec).into(),
        branch_enis: annotation.map(enis_of).transpose().into(),
        vlan: annotation.map(vlan_of).transpose().map(|vlan| vlan.flatten().map(Box::new)).into(),
        sandbox,
        scheduled: bound.and_then(|condition| condition.last_transition_time),
        finished: finished(status),
        has_address: status.pod_ip.as_ref().is_some_and(|address| !address.is_empty()),
        of_host: spec.host_network,
    }
}

/// The status of a condition that is `True` or `False`.
struct Status(bool);

impl std::str::FromStr for Status {
    type Err = ();

    fn from_str(status: &str) -> Result<Self, ()> {
        match status {
            "True" => Ok(Self(true)),
            "False" => Ok(Self(false)),
            _ => Err(()),
        }
    }
}

/// The controller adds up the containers, and leaves init containers out.
fn requests(spec: &PodSpec) -> Result<Option<u64>, Unknown> {
    let mut sum = None;
    for container in whole(spec.containers.as_ref())? {
        let amounts = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let Some(text) = amounts.and_then(|Amounts { pod_eni, .. }| pod_eni.as_deref()) else { continue };
        let enis = parse_quantity(text)
            .map_err(|why| Unknown::new(Cause::Malformed, format!("a pod's request of branch ENIs: {why}")))?;
        sum = Some(enis.saturating_add(sum.unwrap_or_default()));
    }
    Ok(sum.filter(|enis| *enis > 0))
}

fn enis_of(annotation: &str) -> Result<Vec<String>, Unknown> {
    let malformed = |why: &str| Unknown::new(Cause::Malformed, format!("the annotation pod-eni of a pod: {why}"));
    // serde_json's own message quotes what it found, at any length.
    let list: First<RawEni, MAX_ENIS> = serde_json::from_str(annotation).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        malformed(&format!("expected a list of ENIs (line {line}, column {column})"))
    })?;
    if list.left_out > 0 {
        let why = format!("the annotation pod-eni of a pod names more than {MAX_ENIS} ENIs");
        return Err(Unknown::new(Cause::TooLarge, why));
    }
    let ids: Vec<String> = list.items.into_iter().map(|eni| eni.id).collect();
    if ids.iter().any(|id| id.len() > MAX_ID) {
        return Err(malformed(&format!("an ENI's id has more than {MAX_ID} bytes")));
    }
    Ok(ids)
}

/// The VLAN of the first ENI; none where the annotation names no ENI.
fn vlan_of(annotation: &str) -> Result<Option<PodVlan>, Unknown> {
    let malformed = |why: &str| Unknown::new(Cause::Malformed, format!("the annotation pod-eni of a pod: {why}"));
    let list: First<RawVlan, 1> =
        serde_json::from_str(annotation).map_err(|_| malformed("expected a list of ENIs with their VLANs"))?;
    let Some(first) = list.items.first() else { return Ok(None) };
    if !(1..=MAX_VLAN).contains(&first.vlan_id) {
        return Err(malformed("expected a vlanId from 1 to 120"));
    }
    let mac = first.if_address.parse().map_err(|_| malformed("expected an Ethernet address as ifAddress"))?;
    let (ipv4, ipv6) = (address(&first.private_ip), address(&first.ipv6_addr));
    let (Ok(ipv4), Ok(ipv6)) = (ipv4, ipv6) else {
        return Err(malformed("expected addresses as privateIp and ipv6Addr"));
    };
    if ipv4.is_none() && ipv6.is_none() {
        return Err(malformed("expected an address as privateIp or ipv6Addr"));
    }
    Ok(Some(PodVlan { vlan: first.vlan_id, mac, ipv4, ipv6 }))
}

/// An address, where there is one.
fn address<A: std::str::FromStr>(text: &str) -> Result<Option<A>, A::Err> {
    if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
}

/// When the last container ended; absent where one has not, or does not say when.
fn finished(status: &PodStatus) -> Option<jiff::Timestamp> {
    let list = status.container_statuses.as_ref().filter(|list| list.left_out == 0)?;
    let ended = list.items.iter().map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at);
    ended.collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// The ids that are kept of a pod.
pub(super) fn enis(network: &PodNetwork) -> &[String] {
    match &network.branch_enis {
        Part::Known(ids) => ids,
        _ => &[],
    }
}

/// The same without them, where there is no room.
pub(super) fn without_enis(network: &PodNetwork, why: &Unknown) -> PodNetwork {
    let mut rest = network.clone();
    if !enis(network).is_empty() {
        rest.branch_enis = Err::<Vec<String>, _>(why.clone()).into();
        rest.vlan = Err::<Box<PodVlan>, _>(why.clone()).into();
    }
    rest
}

pub type RawCniNode = Raw<CniNodeSpec, CniNodeStatus>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CniNodeSpec {
    features: Option<AtMost<Feature, 256>>,
    managed_by: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Feature {
    name: String,
    value: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CniNodeStatus {
    trunk_interface: Option<Trunk>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Trunk {
    branches: Option<First<Branch, MAX_BRANCHES>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Branch {
    id: String,
}

pub fn cni_node_from(raw: RawCniNode) -> CniNode {
    let spec = raw.spec.unwrap_or_default();
    let features = spec.features.unwrap_or_default().0.into_iter();
    let branches = raw.status.and_then(|status| status.trunk_interface?.branches);
    CniNode {
        exists: true,
        features: features.map(|f| (f.name, f.value.unwrap_or_default())).collect(),
        managed_by: spec.managed_by.filter(|manager| !manager.is_empty()).map(short),
        branches: branches.map(branch_ids).transpose().into(),
    }
}

fn branch_ids(branches: First<Branch, MAX_BRANCHES>) -> Result<Vec<String>, Unknown> {
    if branches.left_out > 0 {
        let why = format!("CNINode names more than {MAX_BRANCHES} branch ENIs");
        return Err(Unknown::new(Cause::TooLarge, why));
    }
    let ids: Vec<String> = branches.items.into_iter().map(|branch| branch.id).collect();
    if ids.iter().any(|id| id.is_empty() || id.len() > MAX_ID) {
        return Err(Unknown::new(Cause::Malformed, "CNINode names a branch ENI without a valid id"));
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::super::{cni_node_from, pod_from};
    use super::*;

    fn network(annotation: &str, requests: &str, status: &str) -> PodNetwork {
        let annotation = serde_json::to_string(annotation).unwrap();
        let json = format!(
            r#"{{"metadata":{{"name":"p","uid":"u","annotations":{{"vpc.amazonaws.com/pod-eni":{annotation}}}}},
                "spec":{{"containers":[{{"resources":{{"requests":{{{requests}}}}}}},{{}}]}},"status":{{{status}}}}}"#
        );
        pod_from(serde_json::from_str(&json).unwrap()).unwrap().network
    }

    const REQUEST: &str = r#""vpc.amazonaws.com/pod-eni":"1""#;

    /// The shapes of the controllers 1.0, 1.4 and 1.7.
    #[test]
    fn the_annotation_is_read_in_each_of_its_shapes() {
        for shape in [
            r#"[{"eniId":"eni-1","ifAddress":"0e:12:34:56:78:9a","privateIp":"10.0.0.7","vlanId":1,"subnetCidr":"10.0.0.0/19"}]"#,
            r#"[{"eniId":"eni-1","ifAddress":"a","privateIp":"","ipv6Addr":"fd00::7","vlanID":1,"subnetCidr":"","subnetV6Cidr":"x"}]"#,
            r#"[{"eniId":"eni-1","vlanId":1,"associationID":"trunk-assoc-011446e51183761a4","later":{"than":["this"]}}]"#,
        ] {
            let network = network(shape, REQUEST, "");
            assert_eq!(network.branch_enis, Part::Known(vec!["eni-1".to_owned()]), "{shape}");
            assert_eq!(network.requests, Part::Known(1));
        }
        assert_eq!(network("[{},{}]", REQUEST, "").branch_enis, Part::Known(vec![String::new(), String::new()]));
    }

    #[test]
    fn the_vlan_is_that_of_the_first_eni() {
        let of = |text: &str| network(text, REQUEST, "").vlan;
        let full = r#"[{"eniId":"eni-1","ifAddress":"0E:12:34:56:78:9a","privateIp":"10.0.0.7","ipv6Addr":"","vlanId":7},{"vlanId":"x"}]"#;
        let mac = "0e:12:34:56:78:9a".parse().unwrap();
        let vlan = PodVlan { vlan: 7, mac, ipv4: Some([10, 0, 0, 7].into()), ipv6: None };
        assert_eq!(of(full), Part::Known(Box::new(vlan)));
        let of_cni = full.replace("vlanId\":7", "vlanID\":7").replace("10.0.0.7", "");
        let of_six = of_cni.replace("Addr\":\"\"", "Addr\":\"fd00::7\"");
        let vlan = PodVlan { ipv4: None, ipv6: Some("fd00::7".parse().unwrap()), ..vlan };
        assert_eq!(of(&of_six), Part::Known(Box::new(vlan)));
        assert_eq!(of("[]"), Part::Absent);
        for (from, to) in
            [("7}", "0}"), ("7}", "121}"), ("7}", "-1}"), ("0E:", ""), ("10.0.0.7", ""), ("10.0.0.7", "x")]
        {
            let bad = full.replacen(from, to, 1);
            assert_eq!(of(&bad).unread().map(|why| why.cause), Some(Cause::Malformed), "{bad}");
            assert_eq!(network(&bad, REQUEST, "").branch_enis.unread(), None, "{bad}");
        }
    }

    #[test]
    fn an_annotation_that_cannot_be_read_is_unknown_and_not_absent() {
        let many = format!("[{}]", ["{}"; MAX_ENIS + 1].join(","));
        let long = format!(r#"[{{"eniId":"{}"}}]"#, "e".repeat(MAX_ID + 1));
        for (text, cause) in [
            ("", Cause::Malformed),
            ("{}", Cause::Malformed),
            (r#"[{"eniId":7}]"#, Cause::Malformed),
            (&many, Cause::TooLarge),
            (&long, Cause::Malformed),
        ] {
            let network = network(text, "", "");
            assert_eq!(network.branch_enis.unread().map(|why| why.cause), Some(cause), "{text}");
            assert_eq!(network.requests, Part::Absent);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_annotation_panics_or_takes_room(text in ".{0,200}", ids in proptest::collection::vec(".{0,80}", 0..20)) {
            let list: Vec<_> = ids.iter().map(|id| serde_json::json!({ "eniId": id })).collect();
            for text in [text, serde_json::to_string(&list).unwrap()] {
                let _ = vlan_of(&text);
                if let Ok(ids) = enis_of(&text) {
                    proptest::prop_assert!(ids.len() <= MAX_ENIS && ids.iter().all(|id| id.len() <= MAX_ID));
                }
            }
        }
    }

    #[test]
    fn requests_are_added_up_and_a_bad_one_is_unknown() {
        assert_eq!(network("[]", r#""vpc.amazonaws.com/pod-eni":"0""#, "").requests, Part::Absent);
        assert!(network("[]", r#""vpc.amazonaws.com/pod-eni":"x""#, "").requests.unread().is_some());
    }

    #[test]
    fn what_the_kubelet_says_of_the_sandbox_is_kept() {
        let of = |condition: &str| network("[]", "", &format!(r#""conditions":[{condition}]"#));
        let sandbox = |status: &str| {
            let condition = format!(
                r#"{{"type":"PodReadyToStartContainers","status":"{status}","reason":"PodSandboxNotReady",
                    "message":"pod sandbox has no IP address","lastTransitionTime":"2026-11-20T10:00:00Z"}}"#
            );
            of(&condition).sandbox.unwrap()
        };
        assert_eq!(["True", "False", "Unknown"].map(|status| sandbox(status).ready), [Some(true), Some(false), None]);
        let sandbox = sandbox("False");
        assert_eq!((sandbox.message.as_str(), sandbox.since.is_some()), ("pod sandbox has no IP address", true));
        let bound = of(r#"{"type":"PodScheduled","status":"True","lastTransitionTime":"2026-11-20T10:00:00Z"}"#);
        assert!(bound.scheduled.is_some() && bound.sandbox.is_none());
    }

    #[test]
    fn a_pod_finished_when_its_last_container_did() {
        let of = |states: &str| network("[]", "", &format!(r#""containerStatuses":[{states}]"#)).finished;
        let ended = |at: &str| format!(r#"{{"state":{{"terminated":{{"finishedAt":"2026-11-20T10:00:{at}Z"}}}}}}"#);
        let both = of(&format!("{},{}", ended("01"), ended("07"))).unwrap();
        assert_eq!(both.to_string(), "2026-11-20T10:00:07Z");
        assert_eq!(of(&format!(r#"{},{{"state":{{"running":{{}}}}}}"#, ended("01"))), None);
    }

    #[test]
    fn a_cni_node_says_which_branches_there_are_or_that_it_does_not() {
        let of = |json: &str| cni_node_from(serde_json::from_str(json).unwrap());
        let bare = of(r#"{"spec":{"features":[{"name":"SecurityGroupsForPods"}]},"status":{}}"#);
        assert_eq!((bare.branches, bare.managed_by, bare.features.len()), (Part::Absent, None, 1));
        let filled = of(r#"{"spec":{"managedBy":"vpc-resource-controller"},
            "status":{"trunkInterface":{"id":"eni-t","branches":[{"id":"eni-1","vlanID":1}]},"nodeNetworkState":{}}}"#);
        assert_eq!(filled.branches, Part::Known(vec!["eni-1".to_owned()]));
        assert_eq!(filled.managed_by.as_deref(), Some("vpc-resource-controller"));
        assert_eq!(of(r#"{"status":{"trunkInterface":{"id":"eni-t"}}}"#).branches, Part::Absent);
        for bad in ["{}".to_owned(), ["{\"id\":\"e\"}"; MAX_BRANCHES + 1].join(",")] {
            let json = format!(r#"{{"status":{{"trunkInterface":{{"branches":[{bad}]}}}}}}"#);
            assert!(of(&json).branches.unread().is_some());
        }
    }
}
