//! Many planners and two slots, on a real API server: at no time do more have one than there are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use barnacle::agent::remedy::slots::{Slot, Slots};
use barnacle::facts::NodeTime;
use barnacle::kube_api::{Access, Api, connect};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Ground, node, planners, slot, token};
use crate::control::wait_for;
use crate::rights::client::MERGE;

const PLANNERS: usize = 500;
const SLOTS: usize = 2;

struct Planner {
    api: Api,
    slots: Slots,
}

/// Each with the token of its own pod on its own node.
pub fn of_many(ground: &Ground) -> Result<()> {
    let nodes: Vec<Value> = (0..PLANNERS - 2).map(|number| node(&format!("planner-{number}"))).collect();
    ground.plane.apply(&json!({"apiVersion": "v1", "kind": "List", "items": nodes}).to_string())?;
    let mut pods = Vec::new();
    wait_for("a planner on each of 500 nodes", || {
        pods = planners(&ground.admin)?;
        Ok(pods.len() == PLANNERS)
    })?;
    for number in 0..SLOTS as u64 {
        let free = json!({"spec": {"holderIdentity": ""}});
        ground.admin.ask("PATCH", &slot(number), MERGE, &free, &[])?.done()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = Vec::new();
    for (number, (node, pod)) in pods.iter().enumerate() {
        let user = json!({"token": token(&ground.admin, Some(pod))?});
        let config = ground.plane.kubeconfig_of(&format!("planner-{number}"), "kube-system", &user)?;
        let access = Access::kubeconfig(config.to_str().context("a path that is not UTF-8")?);
        let api = runtime.block_on(connect(&access, node)).map_err(|error| anyhow::anyhow!("{error}"))?;
        all.push(Planner { api, slots: Slots::new("barnacle-remedy", SLOTS as u64) });
    }

    let (mut holders, waiting) = runtime.block_on(try_all(all, 0))?;
    ensure!(holders.len() == SLOTS, "{} of {PLANNERS} planners took one of {SLOTS} slots", holders.len());
    agree(ground, &holders)?;
    println!("   of {PLANNERS} planners at one time {SLOTS} took a slot");

    // One that is given back has one new holder.
    let (planner, given) = holders.pop().context("a holder")?;
    runtime.block_on(planner.slots.release(&planner.api, given));
    let (new, waiting) = runtime.block_on(try_all(waiting, 1))?;
    ensure!(new.len() == 1, "{} planners took the slot that was given back", new.len());
    holders.extend(new);
    agree(ground, &holders)?;

    // All have seen both held, and nothing changes for two minutes: both holders are silent, and no more than two come after them.
    let (none, waiting) = runtime.block_on(try_all(waiting, 2))?;
    ensure!(none.is_empty(), "{} planners took a slot that is held", none.len());
    let (after, _) = runtime.block_on(try_all(waiting, 123))?;
    ensure!(after.len() == SLOTS, "{} planners took the slots of {SLOTS} silent holders", after.len());
    agree(ground, &after)?;
    println!("   a slot that was given back had one new holder, and those of two silent holders had two");
    Ok(())
}

/// All at one time, so many seconds after the first try: who got a slot, and who did not.
async fn try_all(planners: Vec<Planner>, seconds: u64) -> Result<(Vec<(Planner, Slot)>, Vec<Planner>)> {
    let mut tries = JoinSet::new();
    for mut planner in planners {
        tries.spawn(async move {
            let took = planner.slots.take(&planner.api, time(seconds)).await;
            (planner, took)
        });
    }
    let (mut held, mut waiting, mut unanswered) = (Vec::new(), Vec::new(), 0);
    while let Some(tried) = tries.join_next().await {
        match tried? {
            (planner, Ok(slot)) => held.push((planner, slot)),
            (planner, Err(stop)) => {
                unanswered += usize::from(stop.name() != "no-slot");
                waiting.push(planner);
            }
        }
    }
    if unanswered > 0 {
        println!("   {unanswered} planners had no answer from the API server, and so no slot");
    }
    Ok((held, waiting))
}

fn time(seconds: u64) -> NodeTime {
    NodeTime {
        boot: "3f5b6a52-0b7c-4c53-9d8a-1f2e3d4c5b6a".parse().expect("a boot id"),
        up: Duration::from_secs(1000 + seconds),
        wall: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// The Leases have the names of those who believe that they have a slot.
fn agree(ground: &Ground, holders: &[(Planner, Slot)]) -> Result<()> {
    let mut named = Vec::new();
    for number in 0..SLOTS as u64 {
        let lease = ground.admin.get(&slot(number))?.done()?;
        named.push(lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned());
    }
    let mut believe: Vec<String> = holders.iter().map(|(planner, _)| planner.api.node.clone()).collect();
    named.sort();
    believe.sort();
    ensure!(named == believe, "the Leases name {named:?}, and {believe:?} believe that they have a slot");
    Ok(())
}
