//! Where a kubelet has its directory that runs inside another program: by the arguments which that program gives it.

use serde::Deserialize;

use crate::collect::host::root::{Root, relative};

/// The directory of a kubelet that has no such option.
const USUAL: &str = "/var/lib/kubelet";
/// What `${SNAP_COMMON}` and `${SNAP_DATA}` are to MicroK8s.
const SNAP: [(&str, &str); 2] =
    [("${SNAP_COMMON}", "/var/snap/microk8s/common"), ("${SNAP_DATA}", "/var/snap/microk8s/current")];
/// Where MicroK8s has it when its arguments cannot be read, as in a container.
const OF_KUBELITE: &str = "/var/snap/microk8s/common/var/lib/kubelet";
/// k3s hides its own flags, and has them in a file as a rule.
const OF_K3S: &str = "etc/rancher/k3s/config.yaml";

/// The directory that a program gives to the kubelet inside it. One that is set by hand wins.
pub(super) fn root_dir(root: &Root, program: &str, cmdline: &[u8], set: &str) -> Option<String> {
    if set != USUAL {
        return None;
    }
    let text = String::from_utf8_lossy(cmdline);
    let arguments: Vec<&str> = text.split('\0').collect();
    let found = of_arguments(&arguments).or_else(|| of_files(root, program, &arguments))?;
    let found = SNAP.iter().fold(found, |path, (name, value)| path.replace(name, value));
    found.starts_with('/').then_some(found)
}

/// k3s takes `--kubelet-arg=root-dir=DIR`, once for each flag of the kubelet's; k0s has a flag of its own.
fn of_arguments(arguments: &[&str]) -> Option<String> {
    let mut following = arguments.iter().skip(1);
    arguments.iter().find_map(|argument| {
        let next = following.next().copied();
        let flag = argument.strip_prefix("--")?;
        let (name, value) = flag.split_once('=').map_or((flag, next), |(name, value)| (name, Some(value)));
        match name {
            "kubelet-arg" | "kubelet-extra-args" => value?.split_whitespace().find_map(of_kubelet),
            "kubelet-root-dir" => value.map(str::to_owned),
            _ => None,
        }
    })
}

/// One flag of the kubelet's, with or without its dashes.
fn of_kubelet(flag: &str) -> Option<String> {
    let value = flag.trim_start_matches('-').strip_prefix("root-dir=")?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

fn of_files(root: &Root, program: &str, arguments: &[&str]) -> Option<String> {
    let read = |path: &str| root.read(path, |bytes| Ok(bytes.to_vec())).ok();
    match program {
        "kubelite" => {
            let file = arguments.iter().find_map(|argument| argument.strip_prefix("--kubelet-args-file="));
            let text = file.and_then(|file| read(relative(file)));
            let named = text.and_then(|text| String::from_utf8_lossy(&text).lines().rev().find_map(of_kubelet));
            named.or_else(|| Some(OF_KUBELITE.to_owned()))
        }
        "k3s-server" | "k3s-agent" | "k3s" => of_k3s(&read(OF_K3S)?),
        _ => None,
    }
}

/// What k3s's configuration has for the kubelet.
#[derive(Deserialize)]
struct K3s {
    #[serde(default, rename = "kubelet-arg")]
    kubelet: Arguments,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Arguments {
    One(String),
    Several(Vec<String>),
}

impl Default for Arguments {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

fn of_k3s(text: &[u8]) -> Option<String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let K3s { kubelet } = serde_saphyr::from_slice_with_options(text, options).ok()?;
    match kubelet {
        Arguments::One(flag) => of_kubelet(&flag),
        // The last one counts.
        Arguments::Several(flags) => flags.iter().rev().find_map(|flag| of_kubelet(flag)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(program: &str, cmdline: &str, files: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::open(dir.path()).unwrap();
        root_dir(&root, program, cmdline.replace(' ', "\0").as_bytes(), USUAL)
    }

    #[test]
    fn the_arguments_of_a_program_name_the_directory_of_its_kubelet() {
        for cmdline in [
            "k3s agent --kubelet-arg=root-dir=/data/kubelet",
            "k3s agent --kubelet-arg max-pods=9 --kubelet-arg root-dir=/data/kubelet",
            "k0s worker --kubelet-extra-args=--v=2 --kubelet-root-dir=/data/kubelet",
            "k0s worker --kubelet-extra-args=--root-dir=/data/kubelet",
        ] {
            assert_eq!(of("k0s", cmdline, &[]).as_deref(), Some("/data/kubelet"), "{cmdline}");
        }
        assert_eq!(of("k3s-server", "k3s server", &[]), None);
        assert_eq!(of("k3s-server", "k3s server --kubelet-arg", &[]), None);
        assert_eq!(of("k3s-server", "k3s server --kubelet-arg=root-dir=data", &[]), None);
    }

    #[test]
    fn files_name_it_where_the_arguments_do_not() {
        const FILE: &str = "etc/rancher/k3s/config.yaml";
        for text in [
            "token: x\nkubelet-arg:\n  - \"v=2\"\n  - root-dir=/data/kubelet\n",
            "kubelet-arg: root-dir=/data/kubelet\n",
            "kubelet-arg: [\"root-dir=/old\", \"root-dir=/data/kubelet\"]\n",
        ] {
            assert_eq!(of("k3s-agent", "k3s agent", &[(FILE, text)]).as_deref(), Some("/data/kubelet"), "{text}");
        }
        assert_eq!(of("k3s-agent", "k3s agent", &[(FILE, "kubelet-arg: [")]), None);
        let args = "var/snap/microk8s/8160/args/kubelet";
        let cmdline = format!("kubelite --kubelet-args-file=/{args} --x");
        let text = "--v=2\n--root-dir=${SNAP_COMMON}/kubelet\n";
        assert_eq!(of("kubelite", &cmdline, &[(args, text)]).as_deref(), Some("/var/snap/microk8s/common/kubelet"));
        assert_eq!(of("kubelite", &cmdline, &[]).as_deref(), Some(OF_KUBELITE));
    }

    #[test]
    fn a_directory_that_is_set_by_hand_wins() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root_dir(&root, "kubelite", b"kubelite\0", "/data/kubelet"), None);
    }
}
