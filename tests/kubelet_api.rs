//! The kubelet as a provider, against a fake one over real TLS: the token goes to the node's own kubelet and to no one else,
//! and whatever else comes back is Unknown with its reason.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::world::kubelet::{
    Answer, BY_ADDRESS, BY_NAME, BY_OTHER_CA, CA, Kubelet, NODE, OF_ANOTHER_NODE, SELF_SIGNED, Serves,
};
use barnacle::collect::clock::Clock;
use barnacle::collect::kubelet::metrics::{is_read, parse_metrics};
use barnacle::collect::kubelet::provider::Kubelet as Provider;
use barnacle::facts::{
    Cause, ConfigOrigin, EvictionSignal, KubeletConfig, KubeletConfigz, KubeletMetrics, KubeletStats, Observation,
    Part, Reading, Thresholds, Unknown,
};
use barnacle::kube_api::{ApiError, KubeletApi, ServiceAccount};
use tokio::time::{Instant, timeout};

const TOKEN: &str = "eyJhbGciOi.the-agents-token";
/// What answers the requests for JSON.
const BOTH: &str = r#"{"kubeletconfig":{"evictionHard":{"memory.available":"100Mi"},"evictionPressureTransitionPeriod":"5m0s"},
    "pods":[{"podRef":{"uid":"u"},"process_stats":{"process_count":3}}]}"#;
const EKS: &str = include_str!("fuzz/seeds/configz/eks.json");

/// A pod's service account.
struct Account(tempfile::TempDir);

impl Account {
    fn new() -> Self {
        let account = Self(tempfile::tempdir().unwrap());
        account.write("ca.crt", CA);
        account.write("token", TOKEN);
        account
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn files(&self) -> ServiceAccount {
        ServiceAccount { token: self.0.path().join("token"), ca: self.0.path().join("ca.crt") }
    }

    async fn ask(&self, kubelet: &Kubelet) -> Result<Vec<u8>, ApiError> {
        KubeletApi::new(kubelet.address, NODE.to_owned(), self.files()).configz().await
    }
}

#[tokio::test]
async fn the_nodes_own_kubelet_gets_the_token_and_is_understood() {
    for serves in [BY_ADDRESS, BY_NAME] {
        let (account, kubelet) = (Account::new(), Kubelet::start(serves, Answer::ok(EKS)));
        assert_eq!(account.ask(&kubelet).await.unwrap(), EKS.as_bytes());
        account.write("token", "rotated");
        account.ask(&kubelet).await.unwrap();
        let [first, second] = &kubelet.requests()[..] else { panic!("{:?}", kubelet.requests()) };
        for (head, token) in [(first, TOKEN), (second, "rotated")] {
            let head = head.to_lowercase();
            assert!(head.starts_with("get /configz http/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("authorization: bearer {token}\r\n").to_lowercase()), "{head}");
        }
    }
}

#[tokio::test]
async fn any_other_certificate_gets_no_token() {
    for (serves, says) in [
        (SELF_SIGNED, "not verified by the cluster's CA"),
        (BY_OTHER_CA, "not verified by the cluster's CA"),
        (OF_ANOTHER_NODE, "neither for 127.0.0.1 nor for node-1"),
    ] {
        let (account, kubelet) = (Account::new(), Kubelet::start(serves, Answer::ok(EKS)));
        let error = account.ask(&kubelet).await.unwrap_err();
        assert_eq!(error.cause, Cause::Failed, "{error}");
        assert!(error.why.contains(says) && error.why.contains("the token was not sent"), "{error}");
        assert!(error.why.contains("serverTLSBootstrap: true"), "{error}");
        assert!(kubelet.connections() > 0 && kubelet.requests().is_empty(), "{says}: {:?}", kubelet.requests());
    }
}

#[tokio::test]
async fn a_program_without_tls_that_has_the_port_gets_no_token() {
    let (account, kubelet) = (Account::new(), Kubelet::start(Serves::Plain, Answer::ok(EKS)));
    let error = account.ask(&kubelet).await.unwrap_err();
    assert_eq!(error.cause, Cause::Failed, "{error}");
    let plain = String::from_utf8_lossy(&kubelet.plain()).into_owned();
    assert!(kubelet.connections() > 0 && !plain.contains("token") && !plain.contains("Bearer"), "{plain}");
}

/// Without the cluster's CA those of the operating system would count.
#[tokio::test]
async fn without_the_clusters_ca_or_a_token_nothing_is_sent() {
    let kubelet = Kubelet::start(BY_ADDRESS, Answer::ok(EKS));
    for (name, text) in [("ca.crt", None), ("ca.crt", Some("")), ("ca.crt", Some("no certificate")), ("token", None)] {
        let account = Account::new();
        match text {
            None => std::fs::remove_file(account.0.path().join(name)).unwrap(),
            Some(text) => account.write(name, text),
        }
        let error = account.ask(&kubelet).await.unwrap_err();
        assert_eq!(error.cause, Cause::Failed, "{name} {text:?}: {error}");
        assert!(kubelet.requests().is_empty(), "{name} {text:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_missing() {
    let (account, kubelet) = (Account::new(), Kubelet::start(BY_ADDRESS, Answer::Silence));
    let forbidden = "Forbidden (user=system:serviceaccount:kube-system:barnacle, verb=get, resource=nodes, \
        subresource(s)=[configz proxy])\n\u{1b}[2J";
    for (status, text, cause, says) in [
        (401, "Unauthorized", Cause::Denied, "authentication.webhook.enabled"),
        (403, forbidden, Cause::Denied, "subresource(s)=[configz proxy]"),
        (403, forbidden, Cause::Denied, "from Kubernetes 1.33 on"),
        (404, "404 page not found", Cause::Unsupported, "serves no /configz"),
        (500, "", Cause::Failed, "HTTP 500"),
        // A redirection is not followed: it could lead anywhere.
        (302, "", Cause::Failed, "HTTP 302"),
        (204, "", Cause::Failed, "HTTP 204"),
    ] {
        kubelet.answer(Answer::Status(status, text.to_owned()));
        let error = account.ask(&kubelet).await.unwrap_err();
        assert_eq!((error.cause, error.code), (cause, Some(status)), "{error}");
        assert!(error.why.contains(says) && !error.why.contains('\u{1b}') && !error.why.contains(TOKEN), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_is_late_torn_or_too_large_is_none() {
    let (account, kubelet) = (Account::new(), Kubelet::start(BY_ADDRESS, Answer::Silence));
    for answer in [Answer::Silence, Answer::Dribble(EKS.to_owned())] {
        kubelet.answer(answer);
        let begun = Instant::now();
        let error = account.ask(&kubelet).await.unwrap_err();
        assert!(error.cause == Cause::Stuck && error.why.contains("within 2 s"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    // A whole document, but TLS was not ended: more may have been meant to come.
    kubelet.answer(Answer::CutOff(EKS.to_owned()));
    let error = account.ask(&kubelet).await.unwrap_err();
    assert_eq!(error.cause, Cause::Torn, "{error}");
    kubelet.answer(Answer::ok(" ".repeat((1 << 20) + 1)));
    let error = account.ask(&kubelet).await.unwrap_err();
    assert!(error.cause == Cause::TooLarge && error.why.contains("1 MiB"), "{error}");
    kubelet.answer(Answer::ok(" ".repeat(1 << 20)));
    assert_eq!(account.ask(&kubelet).await.unwrap().len(), 1 << 20);
}

#[tokio::test]
async fn an_address_where_no_kubelet_listens_says_so() {
    let address = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 1);
    let error = KubeletApi::new(address, NODE.to_owned(), Account::new().files()).configz().await.unwrap_err();
    assert!(error.cause == Cause::Failed && error.why.contains("https://127.0.0.1:1/configz"), "{error}");
}

fn running(clock: &Clock, pid: u32) -> Observation {
    let origin = ConfigOrigin::Process { pid, started: Part::Known(Duration::ZERO), files: Vec::new() };
    let none = || Thresholds::Read(std::collections::BTreeMap::new());
    let value = KubeletConfig {
        origin,
        root_dir: "/k".into(),
        hard: none(),
        soft: none(),
        enforces_pods: true,
        options: Default::default(),
    };
    Observation::KubeletConfig(Reading::Known { value, at: clock.now() })
}

/// The answers to all requests.
async fn next(
    provider: &Provider,
) -> (Result<KubeletConfigz, Unknown>, Result<KubeletStats, Unknown>, Result<KubeletMetrics, Unknown>) {
    let (mut configz, mut stats, mut metrics) = (None, None, None);
    loop {
        timeout(Duration::from_secs(60), provider.news()).await.unwrap();
        for observation in provider.take() {
            match observation {
                Observation::KubeletConfigz(reading) => configz = Some(reading),
                Observation::KubeletStats(reading) => stats = Some(reading),
                Observation::KubeletMetrics(reading) => metrics = Some(reading),
                other => panic!("{other:?}"),
            }
        }
        if let (Some(configz), Some(stats), Some(metrics)) = (&configz, &stats, &metrics) {
            return (
                configz.known().map_err(Clone::clone).cloned(),
                stats.known().map_err(Clone::clone).cloned(),
                metrics.known().map_err(Clone::clone).cloned(),
            );
        }
    }
}

#[tokio::test]
async fn the_collector_asks_once_and_again_after_the_kubelet_was_started_again() {
    let (account, kubelet) = (Account::new(), Kubelet::start(BY_ADDRESS, Answer::ok(BOTH)));
    let clock = Clock::here();
    let mut provider = Provider::start(kubelet.address, NODE.to_owned(), account.files(), clock);
    assert_eq!(provider.follow(&[], clock.now()), 0);
    let begun = clock.now();
    assert_eq!(provider.follow(&[running(&clock, 812)], clock.now()), 3);
    let (configz, stats, metrics) = next(&provider).await;
    assert!(metrics.unwrap_err().why.contains("/metrics: expected"));
    assert_eq!(configz.unwrap().hard[&EvictionSignal::Memory].to_string(), "100Mi");
    assert_eq!(stats.unwrap().get(&"u".to_owned()).unwrap().processes, Part::Known(3));
    assert!(provider.follow(&[running(&clock, 812)], clock.now()) == 0 && clock.now().since(&begun).is_some());
    kubelet.answer(Answer::ok(r#"{"kubeletconfig": "hunter2", "pods": "hunter2"}"#));
    assert_eq!(provider.follow(&[running(&clock, 900)], clock.now()), 3);
    let (configz, stats, metrics) = next(&provider).await;
    assert!(!metrics.unwrap_err().why.contains("hunter2"));
    for (why, path) in [(configz.unwrap_err(), "/configz"), (stats.unwrap_err(), "/stats/summary")] {
        assert!(why.cause == Cause::Malformed && why.why.contains(&format!("{path}: expected")), "{why}");
        assert!(!why.why.contains("hunter2") && !why.why.contains(TOKEN), "{why}");
    }
    let paths: Vec<_> = kubelet.requests().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(paths, ["/configz", "/stats/summary", "/metrics", "/configz", "/stats/summary", "/metrics"]);
}

#[tokio::test]
async fn of_the_kubelets_metrics_only_what_is_read_is_kept() {
    const METRICS: &str = include_str!("fuzz/seeds/metrics/kubelet.txt");
    let account = Account::new();
    let much = format!("{METRICS}{}", "a_series_of_no_use{pod=\"hunter2\"} 1\n".repeat(100_000));
    let kubelet = Kubelet::start(BY_ADDRESS, Answer::ok(much));
    let api = KubeletApi::new(kubelet.address, NODE.to_owned(), account.files());
    let kept = api.metrics(is_read).await.unwrap();
    assert!(kept.len() < METRICS.len() && !String::from_utf8_lossy(&kept).contains("hunter2"), "{}", kept.len());
    assert_eq!(parse_metrics(&kept), parse_metrics(METRICS.as_bytes()));
    assert!(kubelet.requests()[0].starts_with("GET /metrics "));
    kubelet.answer(Answer::ok("a".repeat((8 << 20) + 1)));
    let error = api.metrics(is_read).await.unwrap_err();
    assert!(error.cause == Cause::TooLarge && error.why.contains("8 MiB"), "{error}");
    kubelet.answer(Answer::ok("process_resident_memory_bytes 1\n".repeat(20_000)));
    let error = api.metrics(is_read).await.unwrap_err();
    assert!(error.cause == Cause::TooLarge && error.why.contains("256 KiB of the lines"), "{error}");
    kubelet.answer(Answer::CutOff(METRICS.to_owned()));
    assert_eq!(api.metrics(is_read).await.unwrap_err().cause, Cause::Torn);
    kubelet.answer(Answer::Status(403, "Forbidden".into()));
    let error = api.metrics(is_read).await.unwrap_err();
    assert!(error.cause == Cause::Denied && error.why.contains("the permission nodes/metrics"), "{error}");
}

#[tokio::test]
async fn a_refusal_of_the_figures_of_pods_names_the_right() {
    let (account, kubelet) = (Account::new(), Kubelet::start(BY_ADDRESS, Answer::Status(403, "Forbidden".into())));
    let api = KubeletApi::new(kubelet.address, NODE.to_owned(), account.files());
    let mut pods = 0;
    let error = api.stats(&mut |_| pods += 1).await.unwrap_err();
    assert!(error.cause == Cause::Denied && error.why.contains("the permission nodes/stats"), "{error}");
    assert!(!error.why.contains("nodes/proxy"), "kubelets of every version know the right: {error}");
    kubelet.answer(Answer::Status(500, "x".repeat(1 << 20)));
    let error = api.stats(&mut |_| pods += 1).await.unwrap_err();
    assert!(error.code == Some(500) && error.why.len() < 1000, "{}", error.why.len());
    // Larger than all of it may be in memory, and read all the same.
    let pod = format!(r#"{{"podRef":{{"uid":"u"}},"x":"{}"}}"#, "x".repeat(900_000));
    kubelet.answer(Answer::ok(format!(r#"{{"node":{{}},"pods":[{}]}}"#, vec![pod.as_str(); 20].join(","))));
    assert_eq!(api.stats(&mut |_| pods += 1).await.unwrap(), br#"{"node":{},"pods":[]}"#);
    assert_eq!(pods, 20);
    kubelet.answer(Answer::ok(" ".repeat((256 << 10) + 1)));
    let error = api.stats(&mut |_| pods += 1).await.unwrap_err();
    assert!(error.cause == Cause::TooLarge && error.why.contains("outside its items"), "{error}");
}
