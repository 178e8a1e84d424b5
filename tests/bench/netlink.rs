//! What it costs to list links, rules and routes on a node with many branch ENIs: in a network namespace of its own, on the real kernel.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use barnacle::collect::netlink;
use nix::sched::{CloneFlags, unshare};

use super::timed;

/// The most branch ENIs that most large types can have.
const BRANCHES: u16 = 107;
/// Pods of a node, those with a branch ENI among them.
const PODS: u16 = 110;
const ROUNDS: usize = 101;

/// What the VPC CNI makes in strict mode, as lines of `ip -batch`. Where the kernel has no links of VLANs (the module 8021q), others
/// stand in for them: the kernel writes a few bytes less of each.
fn commands(has_vlans: bool) -> String {
    let mut lines = vec!["link set lo up".to_owned(), "link add trunk type dummy".into(), "link set trunk up".into()];
    for pod in 1..=PODS {
        let (veth, address) = (format!("vlan{pod:011x}"), format!("10.1.0.{pod}"));
        lines.push(format!("link add {veth} type veth peer name p{pod}"));
        lines.push(format!("link set {veth} up"));
        if pod > BRANCHES {
            lines.push(format!("route add {address}/32 dev {veth}"));
            continue;
        }
        let (link, table) = (format!("vlan.eth.{pod}"), 100 + pod);
        lines.push(match has_vlans {
            true => format!("link add link trunk name {link} type vlan id {pod}"),
            false => format!("link add {link} type dummy"),
        });
        lines.push(format!("link set {link} up"));
        lines.push(format!("route add 10.0.0.1/32 dev {link} scope link table {table}"));
        lines.push(format!("route add default via 10.0.0.1 dev {link} onlink table {table}"));
        lines.push(format!("route add {address}/32 dev {veth} table {table}"));
        lines.push(format!("rule add priority 10 iif {link} table {table}"));
        lines.push(format!("rule add priority 10 iif {veth} table {table}"));
    }
    lines.join("\n") + "\n"
}

fn ip(lines: &str) -> bool {
    let ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
    ip.is_ok_and(|mut ip| {
        let written = ip.stdin.take().is_some_and(|mut input| input.write_all(lines.as_bytes()).is_ok());
        ip.wait().is_ok_and(|status| status.success()) && written
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Prints what one reading costs, or why that cannot be measured here.
pub fn bench() {
    println!("\nLinks, rules and routes of {PODS} pods, {BRANCHES} of them with a branch ENI (netlink, once a minute)");
    // The namespace is that of the thread.
    let measured = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("a network namespace of its own: {error}"))?;
        let has_vlans = ip("link add t type dummy\nlink add link t name t.1 type vlan id 1\nlink del t\n");
        if !has_vlans {
            ip("link del t\n");
        }
        if !ip(&commands(has_vlans)) {
            return Err("ip (iproute2) could not make the links".to_owned());
        }
        let (mut times, mut sizes) = (Vec::new(), [0; 3]);
        for _ in 0..ROUNDS {
            let (time, read) = timed(netlink::branch_links);
            let read = read.map_err(|why| why.why)?;
            times.push(time);
            sizes = [read.links.len(), read.rules.len(), read.routes.len()];
        }
        Ok((has_vlans, median(times), sizes))
    });
    match measured.join().unwrap() {
        Err(why) => println!("  skipped: {why}"),
        Ok((has_vlans, time, [links, rules, routes])) => {
            let of = if has_vlans { "" } else { "; other links stand in for those of VLANs" };
            println!(
                "  {} µs, the kernel's time included: {links} links, {rules} rules, {routes} routes{of}",
                time.as_micros()
            );
        }
    }
}
