//! Which Service selects which pod of this node: for `check --pods` with an operator's own kubeconfig, never for an agent, which has no right to list Services.
//!
//! The labels of pods are compared here and not kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Deserialize;

use super::parse;
use super::watch::list_in_pages;
use crate::collect::bounded::{Names, Texts};
use crate::facts::{Cause, Part, PodServices, PodUid, Unknown};
use crate::kube_api::{Api, ApiError, Piece, name_in_path};

/// More pods than a kubelet runs.
const MAX_PODS: usize = 2048;
/// More Services than one namespace has.
const MAX_SERVICES: usize = 10_000;

/// Labels and selectors: all of them are read, and none is kept.
#[derive(Clone, Debug, Default)]
struct All;

impl Names for All {
    fn is_read(_: &str) -> bool {
        true
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: Option<Texts<All>>,
}

#[derive(Deserialize)]
struct LabeledPod {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Service {
    metadata: Metadata,
    #[serde(default)]
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    selector: Option<Texts<All>>,
    #[serde(rename = "type")]
    type_: String,
}

impl Service {
    /// One without a selector selects nothing, nor does a name elsewhere.
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let spec = self.spec.as_ref().filter(|spec| spec.type_ != "ExternalName");
        let Some(selector) = spec.and_then(|spec| spec.selector.as_ref()) else { return false };
        !selector.texts.is_empty() && selector.texts.iter().all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// The pods of the node by namespace, each with its labels.
#[derive(Default)]
struct Labels {
    pods: BTreeMap<String, BTreeMap<PodUid, BTreeMap<String, String>>>,
    count: usize,
    lacks: Option<Unknown>,
}

impl Labels {
    fn take(&mut self, pod: &Piece<'_>) {
        match of_piece::<LabeledPod>(pod, "a pod") {
            Ok(LabeledPod { metadata }) if self.count < MAX_PODS && !metadata.uid.is_empty() => {
                self.count = self.count.saturating_add(1);
                let labels = metadata.labels.unwrap_or_default().texts;
                self.pods.entry(metadata.namespace).or_default().insert(metadata.uid, labels);
            }
            Ok(_) => {
                self.lack(Unknown::new(Cause::TooLarge, format!("more than {MAX_PODS} pods, or one without a UID")))
            }
            Err(why) => self.lack(why),
        }
    }

    fn lack(&mut self, why: Unknown) {
        self.lacks.get_or_insert(why);
    }
}

/// What the Services of a namespace select of its pods.
struct Selected<'a> {
    pods: &'a BTreeMap<PodUid, BTreeMap<String, String>>,
    services: BTreeMap<PodUid, String>,
    count: usize,
    lacks: Option<Unknown>,
}

impl<'a> Selected<'a> {
    fn of(pods: &'a BTreeMap<PodUid, BTreeMap<String, String>>) -> Self {
        Self { pods, services: BTreeMap::new(), count: 0, lacks: None }
    }

    fn take(&mut self, service: &Piece<'_>) {
        let service = match of_piece::<Service>(service, "a Service") {
            Ok(service) if self.count < MAX_SERVICES && name_in_path(&service.metadata.name).is_ok() => service,
            Ok(_) => {
                let why = format!("more than {MAX_SERVICES} Services in a namespace, or one without a valid name");
                return self.lack(Unknown::new(Cause::TooLarge, why));
            }
            Err(why) => return self.lack(why),
        };
        self.count = self.count.saturating_add(1);
        for (uid, labels) in self.pods {
            if service.selects(labels) {
                self.services.entry(uid.clone()).or_insert_with(|| service.metadata.name.clone());
            }
        }
    }

    fn lack(&mut self, why: Unknown) {
        self.lacks.get_or_insert(why);
    }

    /// Of half a list only what it has is known.
    fn end(mut self) -> impl Iterator<Item = (PodUid, Part<String>)> {
        let lacks = self.lacks.take();
        self.pods.keys().map(move |uid| {
            let of_pod = match (self.services.remove(uid), &lacks) {
                (Some(name), _) => Part::Known(name),
                (None, Some(why)) => Part::Unknown(Box::new(why.clone())),
                (None, None) => Part::Absent,
            };
            (uid.clone(), of_pod)
        })
    }
}

fn of_piece<T: serde::de::DeserializeOwned>(piece: &Piece<'_>, what: &str) -> Result<T, Unknown> {
    match piece {
        Piece::Whole(item) => parse(item),
        Piece::TooLarge(_) => Err(Unknown::new(Cause::TooLarge, format!("{what} is too large to be read"))),
    }
}

/// Which Service selects each pod of this node, by the namespaces of these pods.
///
/// # Errors
/// When the pods cannot be listed. Where Services cannot be, it is not known of the pods of that namespace.
pub async fn pod_services(api: &Api) -> Result<PodServices, ApiError> {
    let mut labels = Labels::default();
    let path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}&limit=250", api.node);
    list_in_pages(api, &path, ("the list", "PodList"), Duration::ZERO, |pod| labels.take(&pod)).await?;
    let Labels { pods, lacks, .. } = labels;
    let mut found = Vec::new();
    // A server that does not answer is not asked for each namespace.
    let mut away: Option<Unknown> = None;
    let namespaces: BTreeSet<&String> = pods.keys().collect();
    for namespace in namespaces {
        let Some(of_namespace) = pods.get(namespace) else { continue };
        let mut selected = Selected::of(of_namespace);
        let read = match (away.clone(), name_in_path(namespace)) {
            (Some(why), _) => Err(why),
            (None, Err(error)) => Err(error.unknown()),
            (None, Ok(namespace)) => {
                let path = format!("/api/v1/namespaces/{namespace}/services?limit=250");
                let take = |service: Piece<'_>| selected.take(&service);
                let read = list_in_pages(api, &path, ("the list", "ServiceList"), Duration::ZERO, take).await;
                away = read.as_ref().err().filter(|error| error.code.is_none()).map(ApiError::unknown);
                read.map_err(|error| error.unknown())
            }
        };
        if let Err(why) = read {
            selected.lack(why);
        }
        found.extend(selected.end());
    }
    Ok(PodServices::with_incomplete(found, lacks))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POD: &str = r#"{"metadata":{"name":"a","namespace":"shop","uid":"u-a","labels":{"app":"web","tier":"front"}},
        "spec":{"containers":[{"env":[{"name":"PASSWORD","value":"hunter2"}]}]}}"#;

    fn service(name: &str, spec: &str) -> String {
        format!(r#"{{"metadata":{{"name":"{name}"}},"spec":{{{spec}}}}}"#)
    }

    /// What these Services select of the pod above.
    fn selected(services: &[String]) -> Part<String> {
        let mut labels = Labels::default();
        labels.take(&Piece::Whole(POD.as_bytes()));
        let pods = labels.pods.get("shop").unwrap();
        let mut selected = Selected::of(pods);
        services.iter().for_each(|service| selected.take(&Piece::Whole(service.as_bytes())));
        let found = selected.end().collect::<Vec<_>>();
        assert_eq!(found.len(), 1);
        found.into_iter().next().unwrap().1
    }

    #[test]
    fn a_service_selects_what_has_all_its_labels() {
        let web = || service("web", r#""selector":{"app":"web"}"#);
        assert_eq!(selected(&[web()]), Part::Known("web".to_owned()));
        let both = service("both", r#""selector":{"app":"web","tier":"front"}"#);
        assert_eq!(selected(&[both, web()]), Part::Known("both".to_owned()), "the first");
        for none in [
            service("other", r#""selector":{"app":"web","tier":"back"}"#),
            service("more", r#""selector":{"app":"web","zone":"a"}"#),
            service("empty", r#""selector":{}"#),
            service("without", ""),
            service("elsewhere", r#""type":"ExternalName","selector":{"app":"web"}"#),
        ] {
            assert_eq!(selected(std::slice::from_ref(&none)), Part::Absent, "{none}");
        }
    }

    #[test]
    fn half_a_list_says_only_what_it_has() {
        let web = service("web", r#""selector":{"app":"web"}"#);
        for bad in ["{}".to_owned(), service("", ""), service("../x", ""), "7".to_owned()] {
            assert!(selected(std::slice::from_ref(&bad)).unread().is_some(), "{bad}");
            assert_eq!(selected(&[bad, web.clone()]), Part::Known("web".to_owned()));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in 0usize..200, byte: u8) {
            let mut damaged = POD.as_bytes().to_vec();
            if let Some(place) = damaged.get_mut(at) {
                *place = byte;
            }
            let mut labels = Labels::default();
            labels.take(&Piece::Whole(&bytes));
            labels.take(&Piece::Whole(&damaged));
            prop_assert!(labels.count <= 2);
        }
    }
}
