//! The fake API server keeps the contract that a real one keeps too, and its faults are what they are called.

#[path = "world/api/contract/mod.rs"]
mod contract;

use std::time::Duration;

use crate::world::api::{Api, EndWatches, Fault, On, daemonset, node, pod};
use anyhow::{Context, Result};
use contract::client::{Client, Watch};
use contract::{CONTRACT, Hands, Server};
use serde_json::{Value, json};

struct FakeHands<'a>(&'a Api);

impl Hands for FakeHands<'_> {
    fn namespace(&self, name: &str) -> Result<()> {
        self.0.namespace(name);
        Ok(())
    }

    fn create(&self, object: &Value) -> Result<()> {
        self.0.put(object.clone());
        Ok(())
    }

    fn merge(&self, object: &Value, patch: &Value) -> Result<()> {
        self.0.update(object, |found| {
            for part in ["spec", "status", "data"] {
                for (field, value) in patch[part].as_object().into_iter().flatten() {
                    found[part][field] = value.clone();
                }
            }
        });
        Ok(())
    }

    fn delete(&self, object: &Value) -> Result<()> {
        self.0.delete(object).map(drop).context("it is not there")
    }

    fn forget(&self) -> Result<()> {
        self.0.compact();
        Ok(())
    }
}

#[test]
fn the_contract_holds() {
    keeps_the_contract(&Api::start(), true);
}

#[test]
fn the_contract_holds_without_streaming_lists() {
    let api = Api::start();
    api.without_streaming_lists();
    keeps_the_contract(&api, false);
}

fn keeps_the_contract(api: &Api, streams: bool) {
    api.token("admin", true);
    api.token("nobody", false);
    let client = Client::plain(api.address());
    let (admin, nobody) = (client.with_token("admin"), client.with_token("nobody"));
    let server = Server { admin, nobody, streams, hands: &FakeHands(api) };
    let broken: Vec<String> = CONTRACT
        .iter()
        .filter_map(|(what, holds)| holds(&server).err().map(|why| format!("{what}: {why:#}")))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn with_node() -> (Api, Client) {
    let api = Api::start();
    api.put(node("a"));
    let client = Client::plain(api.address());
    (api, client)
}

const NODE: &str = "/api/v1/nodes/a";
const WATCH: &str = "/api/v1/nodes?watch=true";

#[test]
fn a_status_is_made_up_for_some_requests_or_below_a_path() {
    let (api, client) = with_node();
    let code = |path: &str| client.get(path).unwrap().code;
    api.fault(Fault::Status(503), On::path("/api/v1/nodes").next(2));
    assert_eq!([NODE, "/api/v1/pods", NODE, NODE].map(code), [503, 200, 503, 200]);
    api.fault(Fault::Status(500), On::all());
    assert_eq!([NODE, WATCH, "/api/v1/pods"].map(code), [500; 3]);
    api.heal();
    assert_eq!(code(NODE), 200);
}

#[test]
fn too_many_requests_say_when_to_come_again() {
    let (api, client) = with_node();
    api.fault(Fault::Status(429), On::all());
    let reply = client.get(NODE).unwrap();
    let status = reply.json().unwrap();
    assert_eq!((reply.code, reply.header("retry-after")), (429, Some("1")));
    assert_eq!((&status["reason"], &status["kind"]), (&json!("TooManyRequests"), &json!("Status")));
}

#[test]
fn half_an_answer_and_a_reset_are_distinguished() {
    let (api, client) = with_node();
    api.fault(Fault::HalfAnswer, On::all().next(1));
    let why = format!("{:#}", client.get(NODE).unwrap_err());
    assert!(why.contains("before what was announced"), "{why}");
    api.fault(Fault::Reset, On::all().next(1));
    let why = format!("{:#}", client.get(NODE).unwrap_err());
    assert!(why.contains("reset by peer"), "{why}");
    assert_eq!(client.get(NODE).unwrap().code, 200);
}

#[test]
fn garbage_is_a_success_without_json() {
    let (api, client) = with_node();
    api.fault(Fault::Garbage, On::all());
    let reply = client.get(NODE).unwrap();
    assert_eq!(reply.code, 200);
    assert!(reply.json().is_err());
}

#[test]
fn one_that_hangs_is_seen_in_the_log_and_says_nothing() {
    let (api, client) = with_node();
    api.fault(Fault::Hang, On::all());
    let hasty = client.with_patience(Duration::from_millis(100));
    let why = hasty.get(NODE).unwrap_err();
    let io = why.downcast_ref::<std::io::Error>().unwrap_or_else(|| panic!("{why:#}"));
    assert_eq!(io.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(api.requests()[0].status, None);
}

#[test]
fn a_slow_one_answers_in_the_end() {
    let (api, client) = with_node();
    api.fault(Fault::Latency(Duration::from_millis(300)), On::all());
    assert!(client.with_patience(Duration::from_millis(30)).get(NODE).is_err());
    assert_eq!(client.get(NODE).unwrap().code, 200);
}

fn watch(client: &Client) -> Watch {
    let mut watch = client.watch(WATCH).unwrap();
    assert_eq!(watch.next().unwrap().unwrap()["type"], "ADDED");
    watch
}

#[test]
fn watches_end_as_asked() {
    let (api, client) = with_node();
    let mut open = watch(&client);
    api.end_watches(EndWatches::Cleanly);
    assert!(open.next().unwrap().is_none());

    let mut open = watch(&client);
    api.end_watches(EndWatches::Reset);
    let why = format!("{:#}", open.next().unwrap_err());
    assert!(why.contains("reset by peer"), "{why}");

    let mut open = watch(&client);
    api.end_watches(EndWatches::HalfEvent);
    assert!(open.next().is_err());

    let mut open = watch(&client.with_patience(Duration::from_millis(100)));
    api.end_watches(EndWatches::Silently);
    api.put(node("b"));
    let why = open.next().unwrap_err();
    assert_eq!(why.downcast_ref::<std::io::Error>().unwrap().kind(), std::io::ErrorKind::WouldBlock);
    let mut anew = watch(&client);
    assert_eq!(anew.next().unwrap().unwrap()["object"]["metadata"]["name"], "b");
}

#[test]
fn an_open_watch_sees_nothing_of_a_compaction() {
    let (api, client) = with_node();
    let mut open = watch(&client);
    api.put(node("b"));
    api.compact();
    assert_eq!(open.next().unwrap().unwrap()["object"]["metadata"]["name"], "b");
}

#[test]
fn it_goes_away_and_comes_back_with_its_objects() {
    let (api, client) = with_node();
    let mut open = watch(&client);
    api.stop();
    assert!(open.next().is_err(), "cut off, not ended");
    let why = client.get(NODE).unwrap_err();
    let io = why.downcast_ref::<std::io::Error>().unwrap_or_else(|| panic!("{why:#}"));
    assert_eq!(io.kind(), std::io::ErrorKind::ConnectionRefused);
    api.resume();
    assert_eq!(client.get(NODE).unwrap().code, 200);
}

#[test]
fn the_log_has_each_request_with_what_was_sent() {
    let (api, client) = with_node();
    let reply = client.get(NODE).unwrap();
    let missing = client.get("/api/v1/nodes/nobody?resourceVersion=0").unwrap();
    let log = api.requests();
    assert_eq!((log[0].method.as_str(), log[0].path.as_str()), ("GET", NODE));
    assert_eq!((log[0].status, log[0].sent), (Some(200), reply.body.len()));
    assert_eq!((log[1].path.as_str(), log[1].status), ("/api/v1/nodes/nobody?resourceVersion=0", Some(404)));
    assert_eq!(log[1].sent, missing.body.len());
    api.forget_requests();
    assert!(api.requests().is_empty());
}

#[test]
fn a_write_whose_answer_is_lost_is_done() {
    let (api, client) = with_node();
    api.fault(Fault::Reset, On::all());
    let patch = json!({"status": {"conditions": [{"type": "BarnacleDegraded", "status": "True"}]}});
    let media_type = "application/strategic-merge-patch+json";
    let lost = client.send("PATCH", "/api/v1/nodes/a/status", media_type, patch.to_string().as_bytes());
    assert!(lost.is_err());
    assert_eq!(api.get("nodes", "", "a").unwrap()["status"]["conditions"][0]["type"], "BarnacleDegraded");
}

#[test]
fn what_is_not_served_says_so() {
    let (_api, client) = with_node();
    for path in ["/api/v1/endpoints", "/api/v1/pods?labelSelector=a%3Db", "/version"] {
        let reply = client.get(path).unwrap();
        assert_eq!(reply.code, 501, "{path}: {}", reply.text());
        assert!(reply.text().contains("tests/world/api does not serve"), "{}", reply.text());
    }
    assert_eq!(client.send("DELETE", NODE, "", b"").unwrap().code, 501);
}

#[test]
fn a_cluster_may_lack_a_custom_resource() {
    let (api, client) = with_node();
    let path = "/apis/vpcresources.k8s.aws/v1alpha1/cninodes";
    assert_eq!(client.get(path).unwrap().code, 200);
    api.uninstall("cninodes");
    assert_eq!(client.get(path).unwrap().text(), "404 page not found\n");
}

#[test]
fn objects_are_put_got_and_listed_without_http() {
    let (api, _) = with_node();
    let made = api.put(pod("default", "p", "a"));
    assert_eq!(api.put(pod("default", "p", "a")), made, "the same again is no new version");
    api.put(daemonset("kube-system", "aws-node"));
    assert_eq!(api.all("pods").len(), 1);
    assert_eq!(api.delete(&made), Some(made));
    assert!(api.get("pods", "default", "p").is_none());
}
