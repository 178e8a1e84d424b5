//! The client and the collector of IMDS against a fake on a loopback port. No test sends anything to the real address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use barnacle::collect::clock::Clock;
use barnacle::collect::imds::{Answer, Client, ImdsCollector, Meter, Outcome, Phase, Settings, Trouble};
use barnacle::config::Config;
use barnacle::facts::{AutoscalingTarget, Cause, ImdsState, LifeCycle, Observation, Part, Reading, Source, SpotAction};
use barnacle::recording::Writer;
use tokio::time::timeout;

use crate::world::imds::{Behaves, Imds, SECRETS, closed, dropping};

const ID: &str = "/latest/meta-data/instance-id";

fn client(address: SocketAddr) -> (Client, Arc<Meter>) {
    let meter = Arc::<Meter>::default();
    (Client::new(address, Clock::here(), Arc::clone(&meter)), meter)
}

fn found(text: &str) -> Result<Answer, Trouble> {
    Ok(Answer::Found(text.as_bytes().to_vec()))
}

#[test]
fn nothing_is_asked_where_no_setting_says_so() {
    let config = Config::default();
    assert!(!config.imds && !config.imds_probe_v1);
    let set = |address: &str| {
        Config::load(None, [], [("imds-address", address)]).map(|config| config.imds_address.to_string()).ok()
    };
    assert_eq!(set("127.0.0.1:8080").as_deref(), Some("127.0.0.1:8080"));
    assert_eq!(set("[fd00:ec2::254]:80").as_deref(), Some("[fd00:ec2::254]:80"));
    for elsewhere in ["10.0.0.7:80", "8.8.8.8:80", "169.254.169.254", "[2001:db8::1]:80"] {
        assert_eq!(set(elsewhere), None, "{elsewhere}");
    }
}

#[tokio::test]
async fn one_token_serves_until_it_ends() {
    let imds = Imds::start("on-demand");
    let (mut client, meter) = client(imds.address);
    for _ in 0..3 {
        assert_eq!(client.get(ID).await, found("i-0123456789abcdef0"));
    }
    assert_eq!(client.get("/latest/meta-data/spot/instance-action").await, Ok(Answer::NotFound));
    let tokens = || imds.asked().iter().filter(|asked| asked.method == "PUT").count();
    assert_eq!((imds.asked().len(), tokens()), (5, 1));
    imds.revoke();
    assert_eq!(client.get(ID).await, found("i-0123456789abcdef0"), "a token that is refused is made again");
    assert_eq!((imds.asked().len(), tokens()), (8, 2));
    assert!(imds.asked().iter().all(|asked| asked.method == "PUT" || asked.has_token), "no request without a token");
    assert_eq!((meter.latency(Phase::Token).count, meter.latency(Phase::Get).count), (2, 6));
    assert_eq!((meter.requests()[&Outcome::Ok], meter.requests()[&Outcome::Error]), (7, 1));
}

/// Each state that differs for a client, and what shows it.
#[tokio::test]
async fn each_trouble_has_its_name() {
    let imds = Imds::start("on-demand");
    let page = b"<html><body>Please log in</body></html>".to_vec();
    for (behaves, state, says) in [
        (Behaves::Off, ImdsState::Off, "HTTP 403, and so has a request without a token"),
        (Behaves::Kube2iam, ImdsState::Proxied, "HTTP 403, and a request without a token has HTTP 401"),
        (Behaves::Kiam, ImdsState::Proxied, "HTTP 404"),
        (Behaves::HopLimit, ImdsState::HopLimit, "no answer within 1 s, and a request without a token has HTTP 401"),
        (Behaves::Silent, ImdsState::NoAnswer, "no answer within 1 s"),
        (Behaves::Slow(Duration::from_secs(3)), ImdsState::NoAnswer, "no answer within 1 s"),
        (Behaves::Cut, ImdsState::Refused, "the connection was cut"),
        (Behaves::Status(429, Some("EC2ws")), ImdsState::Throttled, "HTTP 429"),
        (Behaves::Status(503, Some("EC2ws")), ImdsState::Throttled, "HTTP 503"),
        (Behaves::Status(500, Some("EC2ws")), ImdsState::ServerError, "HTTP 500"),
        (Behaves::Status(502, None), ImdsState::Proxied, "HTTP 502"),
        (Behaves::Status(302, None), ImdsState::Malformed, "HTTP 302"),
        (Behaves::Garbage(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), ImdsState::Malformed, "no HTTP"),
        (Behaves::Page(page), ImdsState::Malformed, "no token"),
        (Behaves::Page(vec![b' '; 1 << 20]), ImdsState::Malformed, "64 KiB"),
    ] {
        imds.behave(behaves.clone());
        let (mut client, _) = client(imds.address);
        let trouble = client.get(ID).await.unwrap_err();
        assert_eq!(trouble.state, state, "{behaves:?}: {}", trouble.why);
        assert!(
            trouble.why.contains(says) && trouble.why.contains("http://127.0.0.1:"),
            "{behaves:?}: {}",
            trouble.why
        );
    }
    // Whatever there was before, it goes on from here.
    imds.behave(Behaves::Well);
    assert_eq!(client(imds.address).0.get(ID).await, found("i-0123456789abcdef0"));
}

#[tokio::test]
async fn no_connection_is_refused_or_lost() {
    let (mut refused, _) = client(closed());
    let trouble = refused.get(ID).await.unwrap_err();
    assert!(trouble.state == ImdsState::Refused && trouble.why.ends_with("connection refused"), "{}", trouble.why);
    let (address, _held) = dropping();
    let (mut lost, meter) = client(address);
    let begun = Instant::now();
    let trouble = lost.get(ID).await.unwrap_err();
    assert!(
        trouble.state == ImdsState::NoAnswer && trouble.why.ends_with("no connection within 1 s"),
        "{}",
        trouble.why
    );
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((meter.total(), meter.requests()[&Outcome::Timeout]), (1, 1), "nothing else is tried");
}

/// What a client that is switched off in the middle meets: its token is still good, and nothing is answered.
#[tokio::test]
async fn a_service_that_is_switched_off_later_is_off() {
    let imds = Imds::start("on-demand");
    let (mut client, _) = client(imds.address);
    assert!(client.get(ID).await.is_ok());
    imds.behave(Behaves::Off);
    assert_eq!(client.get(ID).await.unwrap_err().state, ImdsState::Off);
    imds.behave(Behaves::Well);
    assert!(client.get(ID).await.is_ok());
}

/// Two a second, beside what is read at the start.
#[tokio::test]
async fn requests_are_paced() {
    let imds = Imds::start("on-demand");
    let (mut client, _) = client(imds.address);
    let begun = Instant::now();
    for _ in 0..19 {
        client.get(ID).await.unwrap();
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1900), "20 requests in {took:?}, of which 16 may be made at once");
}

async fn until(collector: &ImdsCollector, seen: &mut Vec<Observation>, is_wanted: impl Fn(&Observation) -> bool) {
    let wait = async {
        while !seen.iter().any(&is_wanted) {
            collector.news().await;
            seen.extend(collector.take());
        }
    };
    timeout(Duration::from_secs(60), wait).await.expect("it was not observed");
}

fn health(observation: &Observation) -> Option<ImdsState> {
    match observation {
        Observation::Imds(Reading::Known { value, .. }) => Some(value.state),
        _ => None,
    }
}

fn start(address: SocketAddr, probe_v1: bool) -> ImdsCollector {
    ImdsCollector::start(Settings { address, probe_v1 }, Clock::here())
}

#[tokio::test]
async fn the_collector_says_which_instance_this_is_and_how_it_ends() {
    let imds = Imds::start("spot");
    imds.allow_v1();
    imds.set("autoscaling/target-lifecycle-state", "InService");
    let collector = start(imds.address, true);
    let mut seen = Vec::new();
    until(&collector, &mut seen, |observation| health(observation) == Some(ImdsState::Answers)).await;
    let instance = seen.iter().find_map(|observation| match observation {
        Observation::ImdsInstance(reading) => reading.known().ok(),
        _ => None,
    });
    let instance = instance.unwrap();
    assert_eq!((instance.id.as_str(), instance.instance_type.as_str()), ("i-0123456789abcdef0", "m5.large"));
    assert_eq!(
        (&instance.life_cycle, &instance.vpc),
        (&Part::Known(LifeCycle::Spot), &Part::Known("vpc-1a2b3c4d".into()))
    );
    let v1 = seen.iter().find_map(|observation| match observation {
        Observation::Imds(Reading::Known { value, .. }) => Some(value.v1.clone()),
        _ => None,
    });
    assert_eq!(v1, Some(Part::Known(true)));
    let notices = |observation: &Observation| match observation {
        Observation::ImdsNotices(Reading::Known { value, .. }) => Some(value.clone()),
        _ => None,
    };
    let first = seen.iter().find_map(notices).unwrap();
    assert_eq!((first.spot, first.rebalance, first.maintenance), (Part::Absent, Part::Absent, Part::Known(Vec::new())));
    assert_eq!(first.autoscaling, Part::Known(AutoscalingTarget::Stays));
    let (before, begun) = (imds.asked().len(), Instant::now());
    imds.set("spot/instance-action", r#"{"action":"terminate","time":"2026-11-21T00:02:00Z"}"#);
    seen.clear();
    until(&collector, &mut seen, |observation| notices(observation).is_some_and(|n| n.spot != Part::Absent)).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    let Part::Known(notice) = seen.iter().rev().find_map(notices).unwrap().spot else { panic!("{seen:?}") };
    assert_eq!((notice.action, notice.at.to_string().as_str()), (SpotAction::Terminate, "2026-11-21T00:02:00Z"));
    // Design section 8: half a request a second on spot, after the first round; the one at its end is allowed for.
    let (asked, passed) = (imds.asked().len() - before, begun.elapsed().as_secs());
    assert!(asked as u64 <= passed / 2 + 3, "{asked} requests in {passed} s");
}

#[tokio::test]
async fn no_secret_leaves_the_collector() {
    let imds = Imds::start("on-demand");
    let collector = start(imds.address, false);
    let mut seen = Vec::new();
    until(&collector, &mut seen, |observation| health(observation) == Some(ImdsState::Answers)).await;
    let path = "/latest/meta-data/iam/security-credentials/eks-node";
    assert!(imds.asked().iter().any(|asked| asked.path == path), "they were asked for");
    assert!(imds.asked().iter().all(|asked| asked.method == "PUT" || asked.has_token), "{:?}", imds.asked());
    let credentials = seen.iter().find_map(|observation| match observation {
        Observation::ImdsCredentials(reading) => reading.known().ok(),
        _ => None,
    });
    let Part::Known(role) = &credentials.unwrap().role else { panic!("{seen:?}") };
    assert_eq!((role.role.as_str(), role.code.as_str(), role.expires.is_some()), ("eks-node", "Success", true));
    let mut recording = Vec::new();
    let mut writer = Writer::new(&mut recording).unwrap();
    writer.step(Clock::here().now(), &seen).unwrap();
    writer.finish().unwrap();
    let text = String::from_utf8(zstd::decode_all(recording.as_slice()).unwrap()).unwrap();
    assert!(text.contains("eks-node"), "{text}");
    let shown = format!("{text} {seen:?} {collector:?}");
    for secret in SECRETS.into_iter().chain(["AQAEA", "123456789012"]) {
        assert!(!shown.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn what_was_announced_is_unknown_while_nothing_answers() {
    let imds = Imds::start("on-demand");
    let collector = start(imds.address, false);
    let mut seen = Vec::new();
    until(&collector, &mut seen, |observation| health(observation) == Some(ImdsState::Answers)).await;
    imds.behave(Behaves::Status(503, Some("EC2ws")));
    seen.clear();
    let throttled = |observation: &Observation| health(observation) == Some(ImdsState::Throttled);
    until(&collector, &mut seen, throttled).await;
    for source in [Source::ImdsNotices, Source::ImdsCredentials] {
        let last = seen.iter().rev().find(|observation| observation.source() == source).unwrap();
        assert_eq!(last.why_unknown().map(|why| why.cause), Some(Cause::Failed), "{source}");
    }
    assert!(!seen.iter().any(|observation| observation.source() == Source::ImdsInstance), "that does not change");
    imds.behave(Behaves::Well);
    seen.clear();
    until(&collector, &mut seen, |observation| health(observation) == Some(ImdsState::Answers)).await;
    let read = |source| seen.iter().any(|o: &Observation| o.source() == source && o.why_unknown().is_none());
    assert!(read(Source::ImdsNotices) && read(Source::ImdsCredentials), "{seen:?}");
}

/// A laptop, and a node whose firewall drops what goes to IMDS.
#[tokio::test]
async fn without_an_imds_nothing_is_missed() {
    let (lost, _held) = dropping();
    for address in [closed(), lost] {
        let collector = start(address, false);
        let mut seen = Vec::new();
        until(&collector, &mut seen, |observation| health(observation).is_some()).await;
        for observation in seen.iter().filter(|observation| observation.source() != Source::Imds) {
            // One request may be lost.
            assert_eq!(observation.why_unknown().map(|why| why.cause), Some(Cause::Baseline), "{observation:?}");
        }
        assert_eq!(collector.meter().total(), 1);
    }
    let collector = start(closed(), false);
    let mut seen = Vec::new();
    let is_not_offered = |o: &Observation| o.why_unknown().is_some_and(|why| why.cause == Cause::Unsupported);
    until(&collector, &mut seen, is_not_offered).await;
    assert_eq!(collector.meter().total(), 2);
}
