//! What users lay over the base must not get rid of what binds it.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tempfile::TempDir;

use super::client::{By, Client};
use super::{DAEMONSET, Ground, dry, token};
use crate::control::wait_for;

/// A directory beside a copy of `daemonset/`: kustomize wants its paths relative.
fn overlay(ground: &Ground, text: &str) -> Result<(TempDir, String)> {
    let copy = tempfile::tempdir_in(ground.plane.scratch())?;
    let copied = std::process::Command::new("cp").arg("-r").arg(format!("{DAEMONSET}/.")).arg(copy.path()).status()?;
    ensure!(copied.success(), "{DAEMONSET} cannot be copied to {}", copy.path().display());
    let dir = copy.path().join("overlay");
    fs::create_dir(&dir)?;
    let head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../base, ../cluster]\n";
    fs::write(dir.join("kustomization.yaml"), format!("{head}{text}"))?;
    let path = dir.to_str().context("a path that is not UTF-8")?.to_owned();
    Ok((copy, path))
}

/// Once the base is gone: what is left is the overlay's own.
pub fn renamed(ground: &Ground) -> Result<()> {
    let (_copy, path) = overlay(ground, "namespace: other\nnamePrefix: our\nnameSuffix: two\n")?;
    ground.plane.kubectl(&["create", "namespace", "other"])?;
    ground.plane.kubectl(&["apply", "-k", &path])?;
    for part in ["base", "cluster"] {
        ground.plane.kubectl(&["delete", "--wait=false", "-k", &format!("{DAEMONSET}/{part}")])?;
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "renamed", "namespace": "other"}, "spec": {
        "nodeName": "a", "serviceAccountName": "ourbarnacletwo", "containers": [{"name": "c", "image": "busybox:lab"}],
        "tolerations": [{"operator": "Exists"}],
    }});
    ground.plane.apply(&pod.to_string())?;
    let agent = Client::new(&ground.plane, token(&ground.plane, "other", "ourbarnacletwo", Some("renamed"))?);
    let cluster = Client::new(&ground.plane, token(&ground.plane, "other", "ourbarnacle-clustertwo", None)?);
    cluster.get("/api/v1/pods?limit=1")?.done()?;
    let refused = |words: &str| {
        let answer = agent.patch(&dry("b"), &json!({}))?;
        Ok(answer.message().contains("ourbarnacle-node-statustwo") && answer.refused(By::Policy(words)).is_ok())
    };
    wait_for("the renamed policy", || refused("only to the node that its pod runs on"))?;
    agent.patch(&dry("a"), &json!({}))?.done()?;
    agent.get("/apis/apps/v1/namespaces/other/daemonsets/ourbarnacletwo")?.done()?;
    let path = "/apis/events.k8s.io/v1/namespaces/default/events?dryRun=All";
    let event = super::events::about_node("a", "a");
    agent.post(path, &event)?.done().map(drop)
}

pub fn read_only(ground: &Ground) -> Result<()> {
    let (_copy, path) = overlay(ground, "components: [../components/read-only]\n")?;
    let with = ground.plane.kubectl(&["kustomize", &format!("{DAEMONSET}/base")])?;
    let without = ground.plane.kubectl(&["kustomize", &path])?;
    let open = |text: &str| {
        let kinds = ["kind: ValidatingAdmissionPolicy", "- patch", "- create", "-reports"];
        kinds.iter().filter(|word| text.contains(**word)).count()
    };
    ensure!(open(&with) == 4, "the words that are looked for are not in the base");
    ensure!(open(&without) == 0, "read-only leaves a policy or a right to write:\n{without}");
    ensure!(without.contains("kind: DaemonSet") && without.contains("kind: ClusterRoleBinding"), "{without}");
    Ok(())
}
