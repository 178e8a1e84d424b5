//! The API server as a provider, against a fake one that fails on demand: nothing is lost, nothing arrives twice, and
//! what is not known is Unknown. What the fake promises, `tests/world_api.rs` and the lab check.

use std::path::Path;
use std::time::Duration;

use crate::world::api::{Api as Fake, EndWatches, Fault, On, node, pod};
use barnacle::collect::clock::Clock;
use barnacle::collect::host::root::Root;
use barnacle::collect::{Cluster, pod_services};
use barnacle::facts::{Cause, Lookup, Node, Observation, Part, Pods, Reading, Source};
use barnacle::kube_api::{Access, Api, connect};
use serde_json::json;
use tokio::time::{Instant, timeout};

/// More than any of this takes on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

struct Watched {
    cluster: Cluster,
    node: Option<Reading<Node>>,
    pods: Option<Reading<Pods>>,
    others: Vec<Observation>,
}

/// A client as `kubectl proxy` would have it: plain HTTP to this machine, without credentials.
async fn client(fake: &Fake) -> Api {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": fake.url()}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "barnacle"}}]});
    std::fs::write(&path, config.to_string()).unwrap();
    connect(&Access::kubeconfig(&path.display().to_string()), "a").await.unwrap()
}

async fn watch(fake: &Fake) -> (Api, Watched) {
    let api = client(fake).await;
    let clock = Clock::new(&Root::open(Path::new("/")).unwrap());
    let cluster = Cluster::start(&api, clock, None);
    (api, Watched { cluster, node: None, pods: None, others: Vec::new() })
}

impl Watched {
    fn take(&mut self) {
        for observation in self.cluster.take() {
            match observation {
                Observation::Node(reading) => self.node = Some(reading),
                Observation::Pods(reading) => self.pods = Some(reading),
                other => self.others.push(other),
            }
        }
    }

    async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            self.take();
            if is_so(self) {
                return;
            }
            assert!(Instant::now() < end, "never: {what}; node {:?}, pods {:?}", self.node, self.pods);
            let _ = timeout(Duration::from_millis(50), self.cluster.news()).await;
        }
    }

    fn names(&self) -> Vec<String> {
        match &self.pods {
            Some(Reading::Known { value, .. }) => {
                let mut names: Vec<String> = value.values().map(|pod| pod.name.clone()).collect();
                names.sort();
                names
            }
            _ => Vec::new(),
        }
    }

    async fn until_pods(&mut self, names: &[&str]) {
        self.until(&format!("pods {names:?}"), |watched| watched.names() == names).await;
    }
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// So much time passes for the client, while the test takes a twentieth of it: the clock of its timers is turned by hand, and
/// what it sends and receives in between is real. A slow machine gets less of that done, so that bounds on how often the
/// client asks hold there, too.
async fn passes(time: Duration) {
    const TICK: Duration = Duration::from_millis(100);
    let (end, ended) = std::sync::mpsc::channel::<()>();
    // While such a task runs, tokio does not turn the clock by itself when there is nothing to do but wait for sockets.
    let held = tokio::task::spawn_blocking(move || ended.recv());
    tokio::time::pause();
    for _ in 0..time.as_millis() / TICK.as_millis() {
        tokio::time::advance(TICK).await;
        // What a tick set off gets to the server and back.
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_millis(5))).await.unwrap();
    }
    tokio::time::resume();
    drop(end);
    held.await.unwrap().unwrap_err();
}

fn world() -> Fake {
    let fake = Fake::start();
    fake.put(node("a"));
    fake.put(node("b"));
    fake.put(pod("default", "one", "a"));
    fake.put(pod("default", "elsewhere", "b"));
    fake
}

#[test]
fn own_node_and_own_pods_are_seen_and_no_others() {
    run(async {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        watched.until("the node", |w| matches!(&w.node, Some(Reading::Known { value, .. }) if value.name == "a")).await;
        fake.put(pod("default", "two", "a"));
        watched.until_pods(&["one", "two"]).await;
        fake.delete(&pod("default", "one", "a"));
        watched.until_pods(&["two"]).await;
    });
}

#[test]
fn a_server_that_cannot_begin_a_watch_with_what_is_there_is_asked_by_pages() {
    run(async {
        let fake = world();
        fake.without_streaming_lists();
        for i in 0..120 {
            fake.put(pod("default", &format!("pod-{i:03}"), "a"));
        }
        let (_, mut watched) = watch(&fake).await;
        watched.until("121 pods", |w| w.names().len() == 121).await;
        fake.put(pod("default", "late", "a"));
        watched.until("the late one", |w| w.names().contains(&"late".to_owned())).await;
    });
}

/// A pod with an argument of so many bytes.
fn large_pod(name: &str, bytes: usize) -> serde_json::Value {
    let mut pod = pod("default", name, "a");
    pod["spec"]["containers"][0]["args"] = json!(["x".repeat(bytes)]);
    pod
}

fn limits(fake: &Fake) -> Vec<String> {
    let limit = |path: &str| path.split('&').find_map(|part| part.strip_prefix("limit=")).map(str::to_owned);
    fake.requests()
        .iter()
        .filter(|asked| asked.path.contains("/pods?"))
        .filter_map(|asked| limit(&asked.path))
        .collect()
}

#[test]
fn large_pods_are_taken_from_a_page_one_by_one() {
    run(async {
        let fake = world();
        fake.without_streaming_lists();
        for i in 0..12 {
            fake.put(large_pod(&format!("pod-{i:03}"), 1_400_000));
        }
        let (_, mut watched) = watch(&fake).await;
        watched.until("13 pods", |w| w.names().len() == 13).await;
        assert_eq!(limits(&fake), ["50"], "one page, however large");
    });
}

/// 120 pods of 0.7 MiB: the server gives them in one page of 84 MiB, whatever limit is asked for.
#[test]
fn a_page_that_is_larger_than_our_memory_is_read() {
    run(async {
        let fake = world();
        fake.without_streaming_lists();
        for i in 0..120 {
            fake.put(large_pod(&format!("pod-{i:03}"), 700_000));
        }
        let (_, mut watched) = watch(&fake).await;
        watched.until("121 pods", |w| w.names().len() == 121).await;
        assert_eq!(limits(&fake), ["50"], "one page");
    });
}

#[test]
fn an_object_that_is_too_large_makes_the_pods_incomplete_until_it_is_gone() {
    for streams in [false, true] {
        run(async {
            let fake = world();
            if !streams {
                fake.without_streaming_lists();
            }
            fake.put(large_pod("whale", 13 << 20));
            let (_, mut watched) = watch(&fake).await;
            let incomplete = |w: &Watched| match &w.pods {
                Some(Reading::Known { value, .. }) => value.incomplete().map(|why| why.why.to_string()),
                _ => None,
            };
            watched.until("pods but for one", |w| w.names() == ["one"] && incomplete(w).is_some()).await;
            let why = incomplete(&watched).unwrap();
            assert!(why.contains("an object of more than 12 MiB is not read"), "{why}");
            fake.put(pod("default", "two", "a"));
            watched.until("another", |w| w.names() == ["one", "two"] && incomplete(w).is_some()).await;
            fake.delete(&large_pod("whale", 0));
            watched.until("all pods", |w| w.names() == ["one", "two"] && incomplete(w).is_none()).await;
        });
    }
}

#[test]
fn nothing_is_lost_when_watches_end_in_any_way() {
    run(async {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        let mut names = vec!["one".to_owned()];
        for (i, end) in [EndWatches::Cleanly, EndWatches::Reset, EndWatches::HalfEvent].into_iter().enumerate() {
            fake.end_watches(end);
            let name = format!("p{i}");
            fake.put(pod("default", &name, "a"));
            names.push(name);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            watched.until_pods(&names).await;
        }
    });
}

#[test]
fn history_that_is_gone_arrives_again() {
    run(async {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        fake.stop();
        // While no client listens the world changes, and the server forgets how.
        fake.delete(&pod("default", "one", "a"));
        fake.put(pod("default", "two", "a"));
        fake.compact();
        fake.resume();
        watched.until_pods(&["two"]).await;
    });
}

#[test]
fn what_was_seen_a_time_ago_stands_while_the_server_is_away_and_a_refusal_is_unknown_at_once() {
    run(async {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        fake.stop();
        passes(Duration::from_secs(3)).await;
        watched.take();
        assert_eq!(watched.names(), ["one"]);
        fake.resume();
        fake.fault(Fault::Status(401), On::path("/api/v1/pods"));
        fake.end_watches(EndWatches::Reset);
        let denied = |w: &Watched| matches!(&w.pods, Some(Reading::Unknown(why)) if why.cause == Cause::Denied);
        watched.until("a refusal", denied).await;
        fake.heal();
        watched.until_pods(&["one"]).await;
    });
}

#[test]
fn a_server_that_was_never_there_is_unknown_with_the_reason() {
    run(async {
        let fake = world();
        fake.stop();
        let (_, mut watched) = watch(&fake).await;
        let said = |w: &Watched| matches!(&w.node, Some(Reading::Unknown(why)) if why.why.contains("cannot be asked"));
        watched.until("the reason", said).await;
        fake.resume();
        watched.until_pods(&["one"]).await;
    });
}

#[test]
fn garbage_and_half_answers_are_survived() {
    run(async {
        for fault in [Fault::Garbage, Fault::HalfAnswer, Fault::Reset, Fault::Status(503), Fault::Status(429)] {
            let fake = world();
            fake.fault(fault, On::all().next(6));
            let (_, mut watched) = watch(&fake).await;
            watched.until_pods(&["one"]).await;
        }
    });
}

/// However a server fails, and for however long: it is not asked without end.
#[test]
fn no_fault_makes_a_storm() {
    let faults = [Fault::Status(500), Fault::Status(401), Fault::Garbage, Fault::HalfAnswer, Fault::Reset];
    let one = |fault: Fault| {
        run(async {
            let fake = world();
            fake.fault(fault.clone(), On::all());
            let (_, _watched) = watch(&fake).await;
            passes(Duration::from_secs(12)).await;
            let asked = fake.requests().len();
            // Three watches, each with at most five tries and two ways to begin, and four hourly ones.
            assert!((3..=34).contains(&asked), "{fault:?}: {asked} requests in 12 s");
        });
    };
    let threads = faults.map(|fault| std::thread::spawn(move || one(fault)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    run(async {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        fake.forget_requests();
        for _ in 0..120 {
            fake.end_watches(EndWatches::Cleanly);
            passes(Duration::from_millis(100)).await;
        }
        let asked = fake.requests().len();
        assert!(asked <= 20, "watches that are cut at once: {asked} requests in 12 s");
    });
}

/// A server that begins a watch and at once says that it cannot go on has not said that what we know is still so.
#[test]
fn an_open_watch_is_no_word_yet() {
    run(async {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        let at = |w: &Watched| match &w.pods {
            Some(Reading::Known { at, .. }) => Some(at.up),
            _ => None,
        };
        let before = at(&watched);
        fake.fault(Fault::Hang, On::path("/api/v1/pods"));
        fake.compact();
        fake.end_watches(EndWatches::Reset);
        passes(Duration::from_secs(4)).await;
        watched.take();
        assert_eq!(at(&watched), before, "as old as it is");
    });
}

#[test]
fn a_pod_that_cannot_be_read_is_a_gap_and_no_absence() {
    run(async {
        let fake = world();
        let mut broken = pod("default", "broken", "a");
        broken["spec"]["priority"] = json!("very high");
        fake.put(broken);
        let (_, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        let Some(Reading::Known { value, .. }) = &watched.pods else { panic!("{:?}", watched.pods) };
        assert_eq!(value.incomplete().map(|why| why.cause), Some(Cause::Malformed));
    });
}

#[test]
fn a_node_of_the_same_name_is_another_one() {
    run(async {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        let uid = |w: &Watched| match &w.node {
            Some(Reading::Known { value, .. }) => Some(value.uid.clone()),
            _ => None,
        };
        watched.until("the node", |w| uid(w).is_some()).await;
        let first = uid(&watched);
        fake.delete(&node("a"));
        watched
            .until("no node", |w| matches!(&w.node, Some(Reading::Unknown(why)) if why.cause == Cause::Missing))
            .await;
        fake.put(node("a"));
        watched.until("another node", |w| uid(w).is_some() && uid(w) != first).await;
    });
}

#[test]
fn lookups_are_answered_by_name_and_an_absence_is_a_fact() {
    run(async {
        let fake = world();
        fake.put(json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"},
            "spec": {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0a"}}}));
        let (_, mut watched) = watch(&fake).await;
        let names = ["pv-1", "pv-2", "../nodes/a"];
        watched.cluster.look_up(names.map(|name| Lookup::PersistentVolume(name.to_owned())).to_vec());
        let answered = |w: &Watched| w.others.iter().any(|o| o.source() == Source::PersistentVolumes);
        watched.until("an answer", answered).await;
        let answers = watched.others.iter().find_map(|other| match other {
            Observation::PersistentVolumes(Reading::Known { value, .. }) => Some(value),
            _ => None,
        });
        let answers = answers.unwrap();
        assert_eq!(answers.get("pv-1").unwrap().unwrap().handle.as_deref(), Some("vol-0a"));
        assert_eq!(answers.get("pv-2"), Ok(None));
        assert_eq!(answers.get("../nodes/a").unwrap_err().cause, Cause::Malformed);
        assert_eq!(answers.get("pv-3").unwrap_err().cause, Cause::NotAsked);
        assert!(!fake.requests().iter().any(|r| r.path.contains("..")), "a name led elsewhere");
    });
}

/// A detector asks for CSINode or CNINode while the hour passes: what the hour's reading knows is not lost where that fails.
#[test]
fn our_csi_and_cni_nodes_stand_where_a_later_reading_fails_and_not_where_it_is_refused() {
    stands(Lookup::CsiNode, "/apis/storage.k8s.io/v1/csinodes/a");
    stands(Lookup::CniNode, "/apis/vpcresources.k8s.aws/v1alpha1/cninodes/a");
}

fn stands(lookup: Lookup, path: &'static str) {
    run(async move {
        let fake = world();
        let (_, mut watched) = watch(&fake).await;
        let read = |w: &Watched| w.others.iter().filter(|o| o.source() == lookup.source()).count();
        let is_known = |w: &Watched| {
            let last = w.others.iter().rfind(|o| o.source() == lookup.source());
            last.map(|observation| observation.why_unknown().is_none())
        };
        watched.until("the hour's reading", |w| is_known(w) == Some(true)).await;
        let asked = || fake.requests().iter().filter(|request| request.path == path).count();
        for (status, published, known) in [(503, 1, true), (200, 2, true), (403, 3, false), (200, 4, true)] {
            if status == 200 {
                fake.heal();
            } else {
                fake.fault(Fault::Status(status), On::path(path));
            }
            let before = asked();
            watched.cluster.look_up(vec![lookup.clone()]);
            watched.until("a request", |_| asked() > before).await;
            passes(Duration::from_secs(1)).await;
            watched.take();
            assert_eq!((read(&watched), is_known(&watched)), (published, Some(known)), "after {status}");
        }
    });
}

#[test]
fn a_start_costs_three_watches_and_four_requests() {
    run(async {
        let fake = world();
        let (api, mut watched) = watch(&fake).await;
        watched.until_pods(&["one"]).await;
        let hourly = [Source::CsiNode, Source::CniNode, Source::VpcCniConfig, Source::AgentDaemonSet];
        watched.until("the hourly ones", |w| hourly.iter().all(|s| w.others.iter().any(|o| o.source() == *s))).await;
        passes(Duration::from_secs(2)).await;
        let watches = fake.requests().iter().filter(|request| request.path.contains("watch=true")).count();
        assert_eq!((watches, fake.requests().len()), (3, 7), "{:?}", fake.requests());
        assert_eq!(api.meter().requests().values().sum::<u64>(), 7);
    });
}

/// As an operator lists them: only of the namespaces of this node's pods.
#[test]
fn services_say_which_pods_of_this_node_they_select() {
    run(async {
        let fake = Fake::start();
        let uid = |object: &serde_json::Value| object["metadata"]["uid"].as_str().unwrap().to_owned();
        let labeled = |namespace: &str, name: &str, app: &str| {
            let mut pod = pod(namespace, name, "a");
            pod["metadata"]["labels"] = json!({ "app": app });
            uid(&fake.put(pod))
        };
        let service = |namespace: &str, name: &str, app: &str| {
            fake.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
                "spec": {"selector": {"app": app}, "ports": [{"port": 80}]}}));
        };
        let (web, job, hidden) =
            (labeled("shop", "web", "web"), labeled("shop", "job", "job"), labeled("other", "x", "web"));
        fake.put(pod("far", "y", "b"));
        (0..260).for_each(|n| service("shop", &format!("s{n:03}"), "none"));
        service("shop", "web", "web");
        service("other", "web", "web");
        fake.fault(Fault::Status(403), On::path("/api/v1/namespaces/other/services"));
        let found = pod_services(&client(&fake).await).await.unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found.get(&web), Some(&Part::Known("web".to_owned())), "on the second page");
        assert_eq!(found.get(&job), Some(&Part::Absent), "of a whole list that no Service selects");
        let refused = found.get(&hidden).and_then(Part::unread).unwrap();
        assert_eq!(refused.cause, Cause::Denied, "{refused}");
        let far = |request: &crate::world::api::Request| request.path.contains("/far/");
        assert!(!fake.requests().iter().any(far), "{:?}", fake.requests());
        fake.fault(Fault::Status(403), On::path("/api/v1/pods"));
        assert_eq!(pod_services(&client(&fake).await).await.unwrap_err().cause, Cause::Denied);
    });
}
