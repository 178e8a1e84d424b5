use proptest::prelude::*;

use super::pod::{MAX_CONTAINERS, MAX_VOLUMES};
use super::*;
use crate::facts::{
    FailingContainer, MAX_FAILING, MAX_SERVED, Part, PodLifecycle, PodPhase, PodResources, RestartPolicy, StartFailure,
};

fn read<R: serde::de::DeserializeOwned>(json: &str) -> R {
    serde_json::from_str(json).unwrap()
}

#[test]
fn a_pod_keeps_what_detectors_read() {
    let pod = pod_from(read(
        r#"{"metadata":{"name":"web-0","namespace":"shop","uid":"8f2c","creationTimestamp":"2026-11-20T10:00:00Z",
            "annotations":{"huge":"x"},"ownerReferences":[{"kind":"Node","name":"n"},{"kind":"StatefulSet","name":"web","controller":true}]},
            "spec":{"nodeName":"a","priority":2000001000,"volumes":[{"emptyDir":{}},{"persistentVolumeClaim":{"claimName":"data-web-0"}}]},
            "status":{"phase":"Running","conditions":[{"type":"PodScheduled","status":"True"}]}}"#,
    ))
    .unwrap();
    assert_eq!(pod.full_name(), "shop/web-0");
    assert_eq!(
        (pod.owner.as_deref(), pod.claims.as_slice()),
        (Some("StatefulSet/web"), ["data-web-0".to_owned()].as_slice())
    );
    assert_eq!((pod.priority, pod.phase, pod.node.as_deref()), (2_000_001_000, PodPhase::Running, Some("a")));
    assert_eq!(pod.unscheduled, None);
}

fn mirror(hash: &str, owner: &str, node: &str) -> KeptPod {
    kept_pod_from(read(&format!(
        r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u","annotations":{{"kubernetes.io/config.mirror":"{hash}"}},
            "ownerReferences":[{owner}]}},"spec":{{"nodeName":"{node}"}}}}"#
    )))
    .unwrap()
}

const HASH: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_mirror_is_known_by_its_manifests_hash() {
    let owner = r#"{"apiVersion":"v1","kind":"Node","name":"a","uid":"node-uid","controller":true}"#;
    let kept = mirror(HASH, owner, "a");
    assert_eq!((kept.pod.node_uid().as_str(), kept.mirror_owner.as_deref()), (HASH, Some("node-uid")));
    assert_eq!(kept.lacks, None);
}

#[test]
fn a_mirror_that_is_not_its_nodes_is_a_pod_like_any() {
    for owner in [
        "",
        r#"{"apiVersion":"v1","kind":"Node","name":"b","uid":"node-uid","controller":true}"#,
        r#"{"apiVersion":"v1","kind":"Node","name":"a","uid":"node-uid"}"#,
        r#"{"apiVersion":"evil/v1","kind":"Node","name":"a","uid":"node-uid","controller":true}"#,
        r#"{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"a","uid":"x","controller":true}"#,
    ] {
        let kept = mirror(HASH, owner, "a");
        assert_eq!((kept.pod.node_uid().as_str(), kept.lacks), ("u", None), "{owner}");
    }
    let owner = r#"{"apiVersion":"v1","kind":"Node","name":"a","uid":"node-uid","controller":true}"#;
    for hash in ["74dcc96c-be53-45c4-a46f-3809d56e9a65", "", &"a".repeat(250_000), "g123456789abcdef0123456789abcdef"] {
        let kept = mirror(hash, owner, "a");
        assert_eq!(kept.pod.node_uid(), "u");
        assert!(kept.lacks.unwrap().why.len() < 200);
    }
}

#[test]
fn of_a_pod_with_too_many_volumes_the_first_are_kept_and_it_says_so() {
    let of = |claims: &[String]| {
        let volumes: Vec<_> =
            claims.iter().map(|name| format!(r#"{{"persistentVolumeClaim":{{"claimName":"{name}"}}}}"#)).collect();
        let volumes = volumes.join(",");
        format!(r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u"}},"spec":{{"volumes":[{volumes}]}}}}"#)
    };
    let whole = kept_pod_from(read(&of(&vec!["c".to_owned(); MAX_VOLUMES]))).unwrap();
    assert_eq!((whole.pod.claims.len(), whole.lacks), (MAX_VOLUMES, None));
    let many = of(&vec!["c".to_owned(); MAX_VOLUMES + 3]);
    let cut = kept_pod_from(read(&many)).unwrap();
    assert_eq!(cut.pod.claims.len(), MAX_VOLUMES);
    assert!(cut.lacks.unwrap().why.starts_with("pod n/p: 3 of its volumes are not kept"));
    assert_eq!(pod_from(read(&many)).unwrap_err().cause, Cause::TooLarge, "by itself it is not known");
    let long = kept_pod_from(read(&of(&["c".repeat(254), "c".repeat(253)]))).unwrap();
    assert_eq!((long.pod.claims.len(), long.lacks.map(|why| why.cause)), (1, Some(Cause::TooLarge)));
}

#[test]
fn drivers_of_volumes_in_the_spec_are_kept_once_each() {
    let of = |volumes: &str| {
        let json =
            format!(r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u"}},"spec":{{"volumes":[{volumes}]}}}}"#);
        kept_pod_from(read(&json)).unwrap()
    };
    let inline = |driver: &str| format!(r#"{{"name":"v","csi":{{"driver":"{driver}","readOnly":true}}}}"#);
    let claim = r#"{"persistentVolumeClaim":{"claimName":"c"}}"#;
    let kept = of(&[&inline("b.example"), claim, &inline("a.example"), &inline("b.example")].join(","));
    assert_eq!(
        (kept.pod.inline_drivers.as_slice(), kept.pod.claims.as_slice()),
        (&["a.example".to_owned(), "b.example".to_owned()][..], &["c".to_owned()][..])
    );
    let long = of(&inline(&"d".repeat(254)));
    assert_eq!((long.pod.inline_drivers.len(), long.lacks.map(|why| why.cause)), (0, Some(Cause::TooLarge)));
}

#[test]
fn an_object_with_more_than_any_has_is_none() {
    let many = ["{}"; 3000].join(",");
    for field in [r#""status":{"conditions":["#, r#""status":{"volumesAttached":["#, r#""spec":{"taints":["#] {
        let json = format!(r#"{{"metadata":{{"name":"a","uid":"u"}},{field}{many}]}}}}"#);
        let error = serde_json::from_str::<RawNode>(&json).unwrap_err().to_string();
        assert!(error.contains("items in a list, found 3000"), "{field}: {error}");
    }
    assert!(serde_json::from_str::<RawCsiNode>(&format!(r#"{{"spec":{{"drivers":[{many}]}}}}"#)).is_err());
    assert!(
        serde_json::from_str::<RawDaemonSet>(&format!(r#"{{"metadata":{{"ownerReferences":[{many}]}}}}"#)).is_err()
    );
    let long = format!(r#"{{"metadata":{{"name":"{}","uid":"u"}}}}"#, "a".repeat(254));
    assert_eq!(pod_from(read(&long)).unwrap_err().cause, Cause::Malformed);
}

#[test]
fn a_pod_without_a_place_says_why() {
    let pod = pod_from(read(
        r#"{"metadata":{"name":"p","uid":"u"},"spec":{"nodeName":""},"status":{"phase":"Pending","conditions":
            [{"type":"PodScheduled","status":"False","message":"0/3 nodes are available"}]}}"#,
    ))
    .unwrap();
    assert_eq!((pod.node, pod.unscheduled.as_deref()), (None, Some("0/3 nodes are available")));
}

#[test]
fn a_pod_of_a_daemonset_is_for_one_node() {
    let pod = pod_from(read(
        r#"{"metadata":{"name":"p","uid":"u"},"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["a"]}]}]}}}}}"#,
    ))
    .unwrap();
    assert_eq!(pod.wants.as_deref(), Some("a"));
    assert_eq!(
        pod_from(read(r#"{"metadata":{"name":"p","uid":"u"},"spec":{"affinity":{"podAffinity":{}}}}"#)).unwrap().wants,
        None
    );
}

#[test]
fn containers_that_the_kubelet_cannot_start_are_kept() {
    let failing = |status: &str| {
        let json = format!(r#"{{"metadata":{{"name":"p","uid":"u"}},"status":{{{status}}}}}"#);
        pod_from(read(&json)).unwrap().failing
    };
    let waits = |name: &str, reason: &str, more: &str| {
        format!(r#"{{"name":"{name}","state":{{"waiting":{{"reason":"{reason}","message":"SECRET"}}}}{more}}}"#)
    };
    let kept = |name: &str, reason, restarts| FailingContainer { name: name.to_owned(), reason, restarts };
    let crashes = waits("a", "CrashLoopBackOff", r#","ready":false,"restartCount":41"#);
    let others =
        [waits("b", "ContainerCreating", ""), r#"{"name":"c","ready":true,"state":{"running":{}}}"#.to_owned()];
    let statuses = format!(r#""containerStatuses":[{},{crashes}]"#, others.join(","));
    assert_eq!(failing(&statuses), Part::Known(vec![kept("a", StartFailure::CrashLoopBackOff, 41)]));
    let init = format!(r#""initContainerStatuses":[{}]"#, waits("i", "ErrImagePull", ""));
    assert_eq!(failing(&init), Part::Known(vec![kept("i", StartFailure::ErrImagePull, 0)]));
    for none in ["", r#""containerStatuses":null"#, r#""containerStatuses":[{"name":"a","state":{"waiting":{}}}]"#] {
        assert_eq!(failing(none), Part::Known(Vec::new()), "{none}");
    }
    // What is ready runs, whatever else is said of it.
    let ready = waits("a", "CrashLoopBackOff", r#","ready":true"#);
    assert_eq!(failing(&format!(r#""containerStatuses":[{ready}]"#)), Part::Known(Vec::new()));
    let many = |count| format!(r#""containerStatuses":[{}]"#, vec![crashes.as_str(); count].join(","));
    assert!(matches!(failing(&many(MAX_CONTAINERS)), Part::Known(list) if list.len() == MAX_FAILING));
    assert_eq!(failing(&many(MAX_CONTAINERS + 1)).unread().map(|why| why.cause), Some(Cause::TooLarge));
    let long = format!(r#""containerStatuses":[{}]"#, waits(&"n".repeat(5000), "CrashLoopBackOff", ""));
    assert!(matches!(failing(&long), Part::Known(list) if list.iter().all(|container| container.name.len() <= 1024)));
}

#[test]
fn a_pod_serves_the_driver_that_has_its_directory_there() {
    let serves = |paths: &[&str]| {
        let volume = |path: &&str| format!(r#"{{"name":"v","hostPath":{{"path":"{path}"}}}}"#);
        let volumes = paths.iter().map(volume).collect::<Vec<_>>().join(",");
        let json = format!(r#"{{"metadata":{{"name":"p","uid":"u"}},"spec":{{"volumes":[{volumes}]}}}}"#);
        pod_from(read(&json)).unwrap().serves
    };
    assert_eq!(serves(&["/var/lib/kubelet/plugins/ebs.csi.aws.com/", "/dev"]), ["ebs.csi.aws.com"]);
    assert_eq!(serves(&["/var/lib/k0s/kubelet/plugins/a.example.com"; 2]), ["a.example.com"]);
    let none: [&str; 0] = [];
    let others = [
        "/var/lib/kubelet/plugins",
        "/var/lib/kubelet/plugins/",
        "/var/lib/kubelet/plugins/kubernetes.io",
        "",
        "/",
        "a",
    ];
    assert_eq!(serves(&others), none);
    assert_eq!(serves(&[&format!("/plugins/{}", "n".repeat(254))]), none);
    let many: Vec<String> = (0..9).map(|n| format!("/plugins/d{n}")).collect();
    assert_eq!(serves(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(), MAX_SERVED);
}

#[test]
fn a_pod_requests_what_the_kubelet_sums_up() {
    let resources = |spec: &str, status: &str| {
        let json = format!(r#"{{"metadata":{{"name":"p","uid":"u"}},"spec":{{{spec}}},"status":{{{status}}}}}"#);
        pod_from(read(&json)).unwrap().resources
    };
    let known = |mebibytes: u64, running| Part::Known(PodResources { memory: mebibytes << 20, running });
    let container = |name: &str, memory: &str, more: &str| {
        format!(r#"{{"name":"{name}","resources":{{"requests":{{"memory":"{memory}","cpu":"1"}}}}{more}}}"#)
    };
    let two = format!(r#""containers":[{},{}]"#, container("a", "100Mi", ""), container("b", "28Mi", ""));
    let running = r#""containerStatuses":[{"name":"a","state":{"running":{"startedAt":"2026-11-20T10:00:00Z"}}},
        {"name":"b","state":{"waiting":{"reason":"CrashLoopBackOff"}}}]"#;
    assert_eq!(resources(&two, running), known(128, 1));
    assert_eq!(resources("", ""), known(0, 0));
    // A sidecar runs beside the others; an init container needs its own and what the sidecars before it do.
    let always = r#","restartPolicy":"Always""#;
    let sidecar =
        format!(r#"{two},"initContainers":[{},{}]"#, container("s", "10Mi", always), container("i", "120Mi", ""));
    assert_eq!(resources(&sidecar, ""), known(138, 0));
    let large =
        format!(r#"{two},"initContainers":[{},{}]"#, container("s", "10Mi", always), container("i", "190Mi", ""));
    assert_eq!(resources(&large, ""), known(200, 0));
    // What is allocated counts while a resize is under way, and what the pod itself requests before all.
    let allocated = r#""containerStatuses":[{"name":"a","allocatedResources":{"memory":"50Mi"}}]"#;
    assert_eq!(resources(&two, allocated), known(78, 0));
    let of_pod = r#","resources":{"requests":{"memory":"1Gi"}},"overhead":{"memory":"24Mi"}"#;
    assert_eq!(resources(&format!("{two}{of_pod}"), ""), known(1048, 0));
    assert_eq!(resources(r#""overhead":{"memory":"24Mi"}"#, ""), known(0, 0));
    let bad = format!(r#""containers":[{}]"#, container("a", "lots", ""));
    assert!(resources(&bad, "").unread().is_some_and(|why| why.cause == Cause::Malformed));
}

#[test]
fn the_huge_pages_of_all_sizes_are_summed_up() {
    let pages = |capacity: &str| {
        let json = format!(r#"{{"metadata":{{"name":"a","uid":"u"}},"status":{{"capacity":{{{capacity}}}}}}}"#);
        node_from(read(&json)).unwrap().huge_pages
    };
    let both = pages(r#""hugepages-1Gi":"2Gi","hugepages-2Mi":"4Mi","memory":"8028548Ki""#);
    assert_eq!(both, Part::Known((2 << 30) + (4 << 20)));
    assert_eq!((pages(r#""hugepages-2Mi":"0""#), pages("")), (Part::Absent, Part::Absent));
    assert!(pages(r#""hugepages-2Mi":"x""#).unread().is_some());
}

#[test]
fn an_object_without_a_name_is_none() {
    for json in ["{}", r#"{"metadata":{"name":"p"}}"#, r#"{"metadata":{"uid":"u"}}"#] {
        assert_eq!(pod_from(read(json)).unwrap_err().cause, Cause::Malformed);
        assert_eq!(node_from(read(json)).unwrap_err().cause, Cause::Malformed);
        assert_eq!(config_from(read(json)).unwrap_err().cause, Cause::Malformed);
    }
}

#[test]
fn nulls_stand_for_what_is_empty() {
    let json = r#"{"metadata":{"name":"a","uid":"u","labels":null,"ownerReferences":null},"spec":null,"status":
        {"conditions":null,"volumesInUse":null,"volumesAttached":null,"capacity":null,"nodeInfo":null}}"#;
    let node = node_from(read(json)).unwrap();
    assert_eq!((node.name.as_str(), node.conditions.len(), node.volumes_in_use.len()), ("a", 0, 0));
}

#[test]
fn a_node_keeps_its_conditions_volumes_and_known_labels() {
    let node = node_from(read(
        r#"{"metadata":{"name":"a","uid":"u","labels":{"node.kubernetes.io/instance-type":"m5.large","secret":"x"}},
            "spec":{"providerID":"aws:///eu-west-1a/i-0abc","taints":[{"key":"k","effect":"NoSchedule"},{"key":"k","value":"v","effect":"NoExecute"}]},
            "status":{"conditions":[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-11-21T10:00:00Z","lastTransitionTime":null}],
            "volumesInUse":["kubernetes.io/csi/ebs.csi.aws.com^vol-0a"],
            "volumesAttached":[{"name":"kubernetes.io/csi/ebs.csi.aws.com^vol-0a","devicePath":"/dev/xvdaa"}],
            "nodeInfo":{"kubeletVersion":"v1.34.4"}}}"#,
    ))
    .unwrap();
    assert_eq!(node.labels.into_keys().collect::<Vec<_>>(), ["node.kubernetes.io/instance-type"]);
    assert_eq!(node.taints, ["k:NoSchedule", "k=v:NoExecute"]);
    assert_eq!(node.volumes_attached["kubernetes.io/csi/ebs.csi.aws.com^vol-0a"], "/dev/xvdaa");
    assert_eq!(node.conditions[0].type_, "Ready");
    assert!(node.conditions[0].heartbeat.is_some() && node.conditions[0].transition.is_none());
}

#[test]
fn a_pause_without_a_reason_is_none() {
    let config = |data: &str| config_from(read(&format!(r#"{{"metadata":{{"name":"b","uid":"u"}}{data}}}"#))).unwrap();
    assert_eq!(config("").pause, None);
    assert_eq!(config(r#","data":{"pause":"  "}"#).pause, None);
    assert_eq!(config(r#","data":{"pause":"incident 7"}"#).pause.as_deref(), Some("incident 7"));
}

#[test]
fn drivers_features_and_classes() {
    let csi = csi_node_from(read(
        r#"{"spec":{"drivers":[{"name":"ebs.csi.aws.com","nodeID":"i-0a","allocatable":{"count":25}},{"name":"x","nodeID":"y","topologyKeys":null}]}}"#,
    ));
    assert_eq!((csi.drivers["ebs.csi.aws.com"].allocatable, csi.drivers["x"].allocatable), (Some(25), None));
    let cni = cni_node_from(read(
        r#"{"spec":{"features":[{"name":"SecurityGroupsForPods"},{"name":"CustomNetworking","value":"z"}]}}"#,
    ));
    assert_eq!(cni.features["CustomNetworking"], "z");
    let daemons = daemon_set_from(read(
        r#"{"spec":{"selector":{"matchLabels":{"a":"b"}}},"status":{"desiredNumberScheduled":7,"numberReady":6}}"#,
    ));
    assert_eq!((daemons.desired, daemons.ready), (7, 6));
    let class =
        class_from(read(r#"{"provisioner":"ebs.csi.aws.com","parameters":{"type":"gp3","restuserkey":"secret"}}"#));
    assert_eq!(class.parameters.len(), 1, "what may be a secret is not kept");
    assert_eq!((class.driver.as_str(), class.parameters["type"].as_str()), ("ebs.csi.aws.com", "gp3"));
    let class = class_from(read(r#"{"driverName":"ebs.csi.aws.com"}"#));
    assert_eq!(class.driver, "ebs.csi.aws.com");
}

#[test]
fn an_attachment_and_its_volume() {
    let attachment = attachment_from(read(
        r#"{"metadata":{"deletionTimestamp":"2026-11-21T10:00:00Z"},"spec":{"attacher":"ebs.csi.aws.com","nodeName":"a",
            "source":{"persistentVolumeName":"pv-1"}},"status":{"attached":true,"attachmentMetadata":{"devicePath":"/dev/xvdaa"},
            "detachError":{"message":"busy"}}}"#,
    ));
    assert_eq!((attachment.attached, attachment.pv.as_deref()), (true, Some("pv-1")));
    assert_eq!(
        (attachment.device_path.as_deref(), attachment.detach_error.as_deref()),
        (Some("/dev/xvdaa"), Some("busy"))
    );
    assert!(attachment.deleting.is_some());
    let volume = volume_from(read(
        r#"{"spec":{"csi":{"driver":"ebs.csi.aws.com","volumeHandle":"vol-0a"},"claimRef":{"namespace":"n","name":"c"},
            "capacity":{"storage":"4Gi"},"storageClassName":"gp3","nodeAffinity":{"required":{"nodeSelectorTerms":[
            {"matchExpressions":[{"key":"topology.ebs.csi.aws.com/zone","operator":"In","values":["eu-west-1a"]}]}]}}},
            "status":{"phase":"Bound"}}"#,
    ));
    assert_eq!(volume.zone.as_deref(), Some("eu-west-1a"));
    assert_eq!((volume.handle.as_deref(), volume.claim.as_deref()), (Some("vol-0a"), Some("n/c")));
    let in_tree = volume_from(read(r#"{"spec":{"awsElasticBlockStore":{"volumeID":"aws://eu-west-1a/vol-0b"}}}"#));
    assert_eq!((in_tree.handle.as_deref(), in_tree.shared), (Some("aws://eu-west-1a/vol-0b"), false));
    let provisioned = r#"{"metadata":{"annotations":{"pv.kubernetes.io/provisioned-by":"ebs.csi.aws.com","x":"y"}}}"#;
    assert!(volume.is_by_hand && !volume_from(read(provisioned)).is_by_hand);
    let of_modes = |modes: &str| volume_from(read(&format!(r#"{{"spec":{{"accessModes":{modes}}}}}"#))).shared;
    assert!(of_modes(r#"["ReadWriteOnce","ReadWriteMany"]"#) && !of_modes(r#"["ReadWriteOnce","ReadOnlyMany"]"#));
    assert!(!of_modes(r#"["ReadWriteOncePod"]"#) && !of_modes("[]") && !of_modes("null"));
}

proptest! {
    /// Whatever the server sends: an object, or an error; never a panic.
    #[test]
    fn no_bytes_make_an_object_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = serde_json::from_slice::<RawPod>(&bytes).map(pod_from);
        let _ = serde_json::from_slice::<RawNode>(&bytes).map(node_from);
    }

    #[test]
    fn no_value_in_any_field_makes_an_object_panic(value in "[ -~]{0,40}", at in 0usize..12) {
        let fields = ["metadata", "spec", "status", "nodeName", "volumes", "phase", "conditions", "ownerReferences",
            "annotations", "creationTimestamp", "affinity", "priority"];
        let value = serde_json::to_string(&value).unwrap();
        let json = format!(r#"{{"metadata":{{"name":"a","uid":"u","{0}":{value}}},"spec":{{"{0}":{value}}},"status":{{"{0}":{value}}},"data":{value}}}"#, fields[at]);
        let _ = serde_json::from_str::<RawPod>(&json).map(pod_from);
        let _ = serde_json::from_str::<RawNode>(&json).map(node_from);
        let _ = serde_json::from_str::<RawConfigMap>(&json).map(config_from);
        let _ = serde_json::from_str::<RawVolume>(&json).map(volume_from);
    }
}

/// As it is written, and no more of it than shows that it is too long.
#[test]
fn the_annotation_that_mutes_is_kept_unread_and_bounded() {
    let text = "DeadMount until 2026-12-01";
    let object = |text: &str| {
        format!(
            r#"{{"metadata":{{"name":"a","namespace":"n","uid":"u","annotations":{{"barnacle.dev/mute":"{text}","x":"y"}}}}}}"#
        )
    };
    let all = |text: &str| {
        let object = object(text);
        let node = node_from(read(&object)).unwrap().mute;
        [node, pod_from(read(&object)).unwrap().mute, volume_from(read(&object)).mute]
    };
    assert_eq!(all(text), [const { Some(()) }; 3].map(|some| some.map(|()| text.to_owned())));
    let long = all(&"ä".repeat(5000));
    assert!(
        long.iter().all(|text| text.as_ref().is_some_and(|text| (MAX_MUTE + 1..=MAX_MUTE + 4).contains(&text.len())))
    );
    assert_eq!(node_from(read(r#"{"metadata":{"name":"a","uid":"u"}}"#)).unwrap().mute, None);
    let config =
        config_from(read(r#"{"metadata":{"name":"a","uid":"u"},"data":{"mute":"a\nb","pause":" ","z":"y"}}"#)).unwrap();
    assert_eq!((config.mute.as_deref(), config.pause), (Some("a\nb"), None));
}

#[test]
fn nothing_of_a_pods_environment_is_kept_and_its_last_change_is() {
    let text = r#"{"metadata":{"name":"a","namespace":"n","uid":"u","annotations":{"token":"hunter2"}},
        "spec":{"containers":[{"name":"c","command":["hunter2"],"args":["hunter2"],"env":[{"name":"SECRET","value":"hunter2"}],
          "envFrom":[{"secretRef":{"name":"hunter2"}}]}],"volumes":[{"name":"v","secret":{"secretName":"hunter2"}}]},
        "status":{"phase":"Running","containerStatuses":[
          {"name":"c","state":{"running":{"startedAt":"2026-11-20T10:00:00Z"}}},
          {"name":"d","state":{"terminated":{"startedAt":"2026-11-20T10:30:00Z","finishedAt":"2026-11-20T11:00:00Z","message":"hunter2"}}}]}}"#;
    let pod = pod_from(serde_json::from_str(text).unwrap()).unwrap();
    assert_eq!(pod.changed, Some("2026-11-20T11:00:00Z".parse().unwrap()));
    let recorded = serde_json::to_string(&pod).unwrap();
    assert!(!recorded.contains("hunter2"), "{recorded}");
}

#[test]
fn of_a_lease_the_time_of_its_renewal_is_kept() {
    let text = r#"{"metadata":{"name":"node-1"},"spec":{"holderIdentity":"node-1","renewTime":"2026-11-21T00:00:25.123456Z"}}"#;
    let lease = lease_from(serde_json::from_str(text).unwrap());
    assert_eq!(lease.renewed, Some("2026-11-21T00:00:25.123456Z".parse().unwrap()));
}

fn lifecycle(spec: &str) -> Part<PodLifecycle> {
    let json = format!(r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u"}},"spec":{spec}}}"#);
    pod_from(read(&json)).unwrap().lifecycle
}

#[test]
fn how_a_pod_is_stopped_is_kept_of_its_containers_and_sidecars() {
    let nothing = PodLifecycle::default();
    assert_eq!(lifecycle("{}"), Part::Known(nothing));
    let whole = r#"{"restartPolicy":"OnFailure","terminationGracePeriodSeconds":45,"containers":[
        {"name":"a","ports":[{"containerPort":80},{"containerPort":81}],"readinessProbe":{"httpGet":{"path":"/"}},
         "lifecycle":{"preStop":{"sleep":{"seconds":5}}},"resources":{"requests":{"cpu":"100m"}}},
        {"name":"b","lifecycle":{"preStop":{"sleep":{"seconds":9}}}}]}"#;
    let kept = PodLifecycle {
        requests_cpu: true,
        restart: RestartPolicy::OnFailure,
        grace_seconds: Some(45),
        has_ports: true,
        has_readiness_probe: true,
        has_pre_stop: true,
        pre_stop_seconds: Some(9),
    };
    assert_eq!(lifecycle(whole), Part::Known(kept));
    let serves =
        r#"[{"name":"a","ports":[{}],"readinessProbe":{},"lifecycle":{"preStop":{"exec":{"command":["x"]}}}}]"#;
    assert_eq!(lifecycle(&format!(r#"{{"initContainers":{serves}}}"#)), Part::Known(nothing));
    let sidecar = serves.replace(r#""name":"a""#, r#""name":"a","restartPolicy":"Always""#);
    let kept = PodLifecycle { has_ports: true, has_readiness_probe: true, has_pre_stop: true, ..nothing };
    assert_eq!(lifecycle(&format!(r#"{{"initContainers":{sidecar}}}"#)), Part::Known(kept));
    let none = r#"{"restartPolicy":"Sometimes","terminationGracePeriodSeconds":-1,"containers":[{"name":"a","ports":[],"readinessProbe":null,"lifecycle":{}}]}"#;
    assert_eq!(lifecycle(none), Part::Known(PodLifecycle { restart: RestartPolicy::Other, ..nothing }));
    let many = vec![r#"{"name":"c"}"#; super::pod::MAX_CONTAINERS + 1].join(",");
    assert!(lifecycle(&format!(r#"{{"containers":[{many}]}}"#)).unread().is_some());
}

/// Each observation may be recorded and shown.
#[test]
fn nothing_of_a_pods_environment_arguments_or_secrets_is_kept() {
    let container = r#"{"name":"main","image":"i","command":["SECRET1"],"args":["SECRET2"],
        "env":[{"name":"SECRET3","value":"SECRET4"},{"name":"X","valueFrom":{"secretKeyRef":{"name":"SECRET5","key":"SECRET6"}}}],
        "envFrom":[{"secretRef":{"name":"SECRET7"}}],"volumeMounts":[{"name":"v","mountPath":"/SECRET8"}],
        "ports":[{"name":"SECRET9","containerPort":80}],
        "readinessProbe":{"httpGet":{"path":"/","httpHeaders":[{"name":"Authorization","value":"SECRET10"}]},"exec":{"command":["SECRET11"]}},
        "livenessProbe":{"exec":{"command":["SECRET12"]}},
        "lifecycle":{"postStart":{"exec":{"command":["SECRET13"]}},"preStop":{"exec":{"command":["SECRET14"]},"httpGet":{"path":"/SECRET15"},"sleep":{"seconds":5}}}}"#;
    let json = format!(
        r#"{{"metadata":{{"name":"p","namespace":"n","uid":"u","annotations":{{"kubectl.kubernetes.io/last-applied-configuration":"SECRET16"}},
            "labels":{{"l":"SECRET17"}}}},
            "spec":{{"containers":[{container}],"initContainers":[{container}],"ephemeralContainers":[{container}],
            "imagePullSecrets":[{{"name":"SECRET18"}}],"serviceAccountName":"SECRET19",
            "volumes":[{{"name":"v","secret":{{"secretName":"SECRET20"}}}},{{"name":"w","csi":{{"driver":"d","volumeAttributes":{{"a":"SECRET21"}},"nodePublishSecretRef":{{"name":"SECRET22"}}}}}}]}}}}"#
    );
    let kept = kept_pod_from(read(&json)).unwrap();
    let shown = format!("{kept:?} {}", serde_json::to_string(&*kept.pod).unwrap());
    assert!(!shown.contains("SECRET"), "{shown}");
    let Part::Known(lifecycle) = kept.pod.lifecycle else { panic!("{shown}") };
    assert!(lifecycle.has_ports && lifecycle.has_readiness_probe && lifecycle.has_pre_stop);
}
