//! The kubelet's command line.

use std::collections::BTreeMap;

use crate::collect::host::root::quote;
use crate::facts::EvictionSignal;

/// Signal names and what was written for them.
pub(super) type Statements = BTreeMap<String, String>;

/// The flags that decide over eviction. A flag that was not given is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`
    pub config: Option<String>,
    /// `--config-dir`
    pub config_dir: Option<String>,
    /// `--root-dir`
    pub root_dir: Option<String>,
    /// `--eviction-hard`
    pub hard: Option<BTreeMap<String, String>>,
    /// `--eviction-soft`
    pub soft: Option<BTreeMap<String, String>>,
    /// `--eviction-soft-grace-period`
    pub grace: Option<BTreeMap<String, String>>,
    /// `--eviction-minimum-reclaim`
    pub reclaim: Option<BTreeMap<String, String>>,
    /// `--enforce-node-allocatable`
    pub enforce: Option<Vec<String>>,
    /// `--eviction-pressure-transition-period`
    pub transition: Option<String>,
    /// `--feature-gates`
    pub gates: BTreeMap<String, bool>,
}

/// Reads `/proc/PID/cmdline`: arguments that each end with a NUL.
///
/// # Errors
/// When the last argument is cut off, or a flag that we know has no value or one that the kubelet would refuse.
pub fn parse_cmdline(bytes: &[u8]) -> Result<Flags, String> {
    let mut flags = Flags::default();
    each_flag(bytes, &Flags::KNOWN, |name, value| flags.set(name, value))?;
    Ok(flags)
}

/// Calls a function with each of these flags that a command line has, and its value.
///
/// # Errors
/// When the last argument is cut off, one of the flags has no value, or the function's own.
pub(in crate::collect::kubelet) fn each_flag(
    bytes: &[u8],
    known: &[&str],
    mut each: impl FnMut(&str, &str) -> Result<(), String>,
) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let mut arguments = text.strip_suffix('\0').ok_or("ends before the end of an argument")?.split('\0').skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            break;
        }
        let Some(flag) = argument.strip_prefix("--") else { continue };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        // The kubelet takes an underscore in a flag's name for a dash.
        let name = name.replace('_', "-");
        if known.contains(&name.as_str()) {
            let value = value.or_else(|| arguments.next()).ok_or_else(|| format!("--{name} has no value"))?;
            each(&name, value)?;
        }
    }
    Ok(())
}

impl Flags {
    const KNOWN: [&str; 10] = [
        "config",
        "config-dir",
        "root-dir",
        "eviction-hard",
        "eviction-soft",
        "eviction-soft-grace-period",
        "eviction-minimum-reclaim",
        "enforce-node-allocatable",
        "eviction-pressure-transition-period",
        "feature-gates",
    ];

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let path = || Some(value.to_owned()).filter(|path| !path.is_empty());
        match name {
            "config" => self.config = path(),
            "config-dir" => self.config_dir = path(),
            "root-dir" => self.root_dir = path(),
            "eviction-hard" => add(&mut self.hard, name, value, '<')?,
            "eviction-soft" => add(&mut self.soft, name, value, '<')?,
            "eviction-soft-grace-period" => add(&mut self.grace, name, value, '=')?,
            "eviction-minimum-reclaim" => add(&mut self.reclaim, name, value, '=')?,
            "eviction-pressure-transition-period" => self.transition = Some(value.to_owned()),
            "feature-gates" => {
                let statements = value.split(',').filter_map(|statement| statement.split_once('='));
                let gates = statements.filter_map(|(gate, on)| Some((gate.trim().to_owned(), go_bool(on.trim())?)));
                self.gates.extend(gates);
            }
            _ => {
                let names = value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
                self.enforce.get_or_insert_default().extend(names);
            }
        }
        Ok(())
    }
}

impl Flags {
    /// Whether the flags alone decide over the hard threshold of a signal, whatever the files say. That of
    /// `allocatableMemory` rests on what is enforced, too.
    pub(super) fn settle_hard(&self, signal: EvictionSignal) -> bool {
        let enforced = signal != EvictionSignal::AllocatableMemory || self.enforce.is_some();
        self.hard.is_some() && self.reclaim.is_some() && enforced
    }

    /// The same of the soft thresholds.
    pub(super) fn settle_soft(&self) -> bool {
        self.soft.is_some() && self.grace.is_some() && self.reclaim.is_some()
    }
}

/// Spellings that Go reads as a truth value.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A flag given twice adds up; given at all, even empty, it replaces what the files say.
fn add(to: &mut Option<Statements>, flag: &str, value: &str, separator: char) -> Result<(), String> {
    let statements = to.get_or_insert_default();
    for statement in value.split(',').filter(|statement| !statement.is_empty()) {
        let (signal, value) = statement
            .split_once(separator)
            .ok_or_else(|| format!("--{flag}: expected SIGNAL{separator}VALUE, found {}", quote(statement)))?;
        statements.insert(signal.trim().to_owned(), value.trim().to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Flags, String> {
        let mut bytes = b"/usr/bin/kubelet\0".to_vec();
        for argument in arguments {
            bytes.extend_from_slice(argument.as_bytes());
            bytes.push(0);
        }
        parse_cmdline(&bytes)
    }

    fn map(pairs: &[(&str, &str)]) -> Option<Statements> {
        Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn the_command_line_of_an_eks_node_is_understood() {
        let flags = parse(&[
            "--cloud-provider=external",
            "--config=/etc/kubernetes/kubelet/config.json",
            "--config-dir=/etc/kubernetes/kubelet/config.json.d",
            "--hostname-override=ip-10-0-0-1.ec2.internal",
            "--node-labels=eks.amazonaws.com/nodegroup=a,b=c",
        ])
        .unwrap();
        assert_eq!(flags.config.as_deref(), Some("/etc/kubernetes/kubelet/config.json"));
        assert_eq!(flags.config_dir.as_deref(), Some("/etc/kubernetes/kubelet/config.json.d"));
        assert_eq!(Flags { config: None, config_dir: None, ..flags }, Flags::default());
    }

    #[test]
    fn values_may_stand_after_an_equals_sign_or_alone() {
        let joined = parse(&["--root-dir=/data", "--eviction-hard=memory.available<5%,nodefs.available<1Gi"]).unwrap();
        let apart = parse(&[
            "--root-dir",
            "/data",
            "-v",
            "2",
            "--eviction_hard",
            "memory.available<5%, nodefs.available < 1Gi",
        ]);
        assert_eq!(apart.unwrap(), joined);
        assert_eq!(joined.hard, map(&[("memory.available", "5%"), ("nodefs.available", "1Gi")]));
    }

    #[test]
    fn maps_add_up_and_an_empty_one_is_given_too() {
        let flags = parse(&[
            "--eviction-soft=memory.available<1Gi",
            "--eviction-soft=nodefs.available<20%",
            "--eviction-soft-grace-period=memory.available=1m30s,nodefs.available=2m",
            "--eviction-minimum-reclaim=nodefs.available=5Gi",
            "--eviction-hard=",
            "--enforce-node-allocatable=pods,system-reserved",
        ])
        .unwrap();
        assert_eq!(flags.soft, map(&[("memory.available", "1Gi"), ("nodefs.available", "20%")]));
        assert_eq!(flags.grace, map(&[("memory.available", "1m30s"), ("nodefs.available", "2m")]));
        assert_eq!(flags.reclaim, map(&[("nodefs.available", "5Gi")]));
        assert_eq!(flags.hard, map(&[]));
        assert_eq!(flags.enforce.unwrap(), ["pods", "system-reserved"]);
    }

    #[test]
    fn what_the_kubelet_would_refuse_is_said() {
        assert!(parse(&["--config"]).unwrap_err().contains("--config has no value"));
        assert!(parse(&["--eviction-hard=memory.available=5%"]).unwrap_err().contains("SIGNAL<VALUE"));
    }

    #[test]
    fn other_words_are_passed_over() {
        assert_eq!(parse(&["run", "-", "--", "--config=/x"]).unwrap(), Flags::default());
        assert_eq!(parse_cmdline(b"kubelet\0").unwrap(), Flags::default());
    }

    #[test]
    fn an_argument_that_is_cut_off_is_another_one() {
        for cut in [&b""[..], b"kubelet", b"kubelet\0--eviction-hard=memory.available<100"] {
            assert!(parse_cmdline(cut).unwrap_err().contains("ends before the end of an argument"));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text in "kubelet\0(--(config|eviction-hard|enforce_node_allocatable)[= \0]?[a-z<=,%0-9]{0,8}\0){0,4}") {
            let _ = parse_cmdline(&bytes);
            let _ = parse_cmdline(text.as_bytes());
        }
    }
}
