//! What users lay over the base must not get rid of what binds it.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::client::{By, Client};
use super::{DAEMONSET, Ground, dry, token};
use crate::control::wait_for;
use crate::overlay::Overlay;

fn overlay(ground: &Ground, text: &str) -> Result<Overlay> {
    Overlay::new(&ground.plane, &format!("resources: [../base, ../cluster]\n{text}"))
}

/// Once the base is gone: what is left is the overlay's own.
pub fn renamed(ground: &Ground) -> Result<()> {
    let overlay = overlay(ground, "namespace: other\nnamePrefix: our\nnameSuffix: two\n")?;
    ground.plane.kubectl(&["create", "namespace", "other"])?;
    overlay.apply(&ground.plane)?;
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
    let overlay = overlay(ground, "components: [../components/read-only]\n")?;
    let with = ground.plane.kubectl(&["kustomize", &format!("{DAEMONSET}/base")])?;
    let without = ground.plane.kubectl(&["kustomize", overlay.path()])?;
    let open = |text: &str| {
        let kinds = ["kind: ValidatingAdmissionPolicy", "- patch", "- create", "-reports"];
        kinds.iter().filter(|word| text.contains(**word)).count()
    };
    ensure!(open(&with) == 4, "the words that are looked for are not in the base");
    ensure!(open(&without) == 0, "read-only leaves a policy or a right to write:\n{without}");
    ensure!(without.contains("kind: DaemonSet") && without.contains("kind: ClusterRoleBinding"), "{without}");
    Ok(())
}

pub fn rendered(ground: &Ground) -> Result<()> {
    let mut count = 0;
    for entry in fs::read_dir(format!("{DAEMONSET}/install"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let path = path.to_str().context("a path that is not UTF-8")?;
            let said =
                ground.plane.kubectl(&["apply", "--dry-run=server", "-f", path]).with_context(|| path.to_owned())?;
            ensure!(said.contains("daemonset.apps/barnacle created"), "{path}: {said}");
            count += 1;
        }
    }
    ensure!(count > 4, "{count} files were found");
    Ok(())
}
