use std::path::PathBuf;

use super::flags::{CommonFlags, MetaFlags, NodeFlags, PortFlags};
use super::*;
use crate::meta_store::MetaAddress;

fn of_file(file: PathBuf) -> Flags {
    let common = CommonFlags { config: Some(file), ..CommonFlags::default() };
    Flags { common, ..Flags::default() }
}

#[test]
fn a_flag_beats_the_file_and_the_source_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("interflow.toml");
    std::fs::write(&file, "advertise = \"a\"\n[ports]\nmqtt = 11\nkafka = 12\n").unwrap();
    let flags = Flags {
        common: CommonFlags { config: Some(file), ..CommonFlags::default() },
        ports: PortFlags { mqtt: Some(13), ..PortFlags::default() },
        ..Flags::default()
    };
    let loaded = load(&flags).unwrap();
    assert_eq!((loaded.config.ports.mqtt, loaded.config.ports.kafka), (13, 12));
    let values = loaded.values().unwrap();
    let source = |key: &str| {
        values.iter().find(|(name, _, _)| name == key).map(|(_, _, source)| source.clone())
    };
    assert_eq!(source("ports.mqtt").as_deref(), Some("flag"));
    assert!(source("ports.kafka").unwrap().starts_with("file "));
    assert_eq!(source("ports.admin").as_deref(), Some("default"));
}

#[test]
fn a_metadata_store_is_named_in_the_file_or_by_a_flag() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("interflow.toml");
    std::fs::write(&file, "[meta]\nstore = \"fdb:/a\"\n").unwrap();
    let mut flags = of_file(file);
    let cluster = |file: &str| MetaAddress::FoundationDb { cluster_file: Some(file.into()) };
    assert_eq!(load(&flags).unwrap().config.meta.store, cluster("/a"));
    flags.common.meta.store = Some(cluster("/b"));
    assert_eq!(load(&flags).unwrap().config.meta.store, cluster("/b"));
}

#[test]
fn how_a_remote_store_is_reached_must_fit_together() {
    let file = || Some(PathBuf::from("/a"));
    let remote = || Some("remote:a:1".parse().unwrap());
    for (meta, expected) in [
        (MetaFlags { store: remote(), tls_ca: file(), ..Default::default() }, None),
        (
            MetaFlags {
                store: remote(),
                token_file: file(),
                tls_ca: file(),
                tls_cert: file(),
                tls_key: file(),
                ..Default::default()
            },
            None,
        ),
        (
            MetaFlags { tls_ca: file(), ..Default::default() },
            Some("meta.tls_ca is for a remote metadata store, and meta.store is embedded"),
        ),
        (
            MetaFlags {
                store: Some("fdb".parse().unwrap()),
                token_file: file(),
                ..Default::default()
            },
            Some("meta.token_file is for a remote"),
        ),
        (
            MetaFlags { store: remote(), tls_ca: file(), tls_key: file(), ..Default::default() },
            Some("--meta-tls-cert and --meta-tls-key"),
        ),
        (
            MetaFlags { store: remote(), tls_cert: file(), tls_key: file(), ..Default::default() },
            Some("needs --meta-tls-ca"),
        ),
    ] {
        let common = CommonFlags { meta, ..CommonFlags::default() };
        let flags = Flags { common, ..Flags::default() };
        match (load(&flags).map(|_| ()), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert!(error.to_string().contains(expected), "{error}");
            }
            (loaded, expected) => panic!("{loaded:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn an_unknown_option_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("interflow.toml");
    std::fs::write(&file, "[ports]\nmqt = 11\n").unwrap();
    let flags = of_file(file);
    let error = format!("{:#}", load(&flags).map(|_| ()).unwrap_err());
    assert!(error.contains("mqt"), "{error}");
}

#[test]
fn the_readme_lists_every_setting_and_no_other() {
    let readme = include_str!("../../README.md");
    let settings = load(&Flags::default()).unwrap().values().unwrap();
    for (name, value, _) in &settings {
        let row = format!("| `{name}` | `{value}` |");
        assert!(readme.contains(&row), "README.md has no row {row}");
    }
    let section = readme.split("\n## ").find(|section| section.starts_with("Settings")).unwrap();
    let listed = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in listed {
        assert!(settings.iter().any(|(known, ..)| known == name), "there is no setting {name}");
    }
}

#[test]
fn what_a_role_needs_is_told() {
    let config = |store: &str, id: Option<u32>| {
        let meta = MetaFlags { store: Some(store.parse().unwrap()), ..MetaFlags::default() };
        let common = CommonFlags { meta, ..CommonFlags::default() };
        let node = NodeFlags { id, ..NodeFlags::default() };
        load(&Flags { common, node, ..Flags::default() }).unwrap().config
    };
    for (role, store, id, told) in [
        (Role::Standalone, "embedded", None, None),
        (Role::Logstore, "remote:a:1", Some(1), None),
        (Role::Gateway, "remote:a:1", None, None),
        (Role::Gateway, "fdb", Some(9_999_999), None),
        (Role::Logstore, "embedded", Some(1), Some("--meta remote:HOST:PORT")),
        (Role::Gateway, "embedded", Some(1), Some("--meta remote:HOST:PORT")),
        (Role::Logstore, "fdb", None, Some("--node-id")),
        (Role::Logstore, "fdb", Some(1_000_000), Some("are of gateways")),
    ] {
        match (config(store, id).check(role), told) {
            (Ok(()), None) => {}
            (Err(error), Some(told)) => assert!(error.to_string().contains(told), "{error}"),
            (checked, told) => panic!("{checked:?} instead of {told:?}"),
        }
    }
    let dev = Config { dev_tls: true, ..config("fdb", None) };
    assert!(dev.check(Role::Gateway).unwrap_err().to_string().contains("keeps nothing"));
}

#[test]
fn a_log_store_states_where_others_reach_it() {
    let config = |advertise: Option<&str>| LogstoreConfig {
        advertise: advertise.map(str::to_owned),
        ..LogstoreConfig::default()
    };
    let (own, all) = ("10.0.0.1:7".parse().unwrap(), "0.0.0.0:7".parse().unwrap());
    assert_eq!(config(None).address(own).unwrap(), "10.0.0.1:7");
    assert_eq!(config(Some("a:9")).address(all).unwrap(), "a:9");
    assert!(config(None).address(all).unwrap_err().to_string().contains("--logstore-advertise"));
    assert!(config(Some("a")).check().is_err());
}

/// The flags of all roles, as their help shows them.
#[test]
fn flags_are_unique_in_each_role() {
    use clap::{Args, Command};
    for command in [
        Flags::augment_args(Command::new("config")),
        StandaloneFlags::augment_args(Command::new("standalone")),
        LogstoreRoleFlags::augment_args(Command::new("logstore")),
        GatewayFlags::augment_args(Command::new("gateway")),
    ] {
        command.debug_assert();
    }
    let gateway = GatewayFlags::augment_args(Command::new("gateway"));
    assert!(gateway.get_arguments().all(|flag| flag.get_long() != Some("data-dir")));
}
