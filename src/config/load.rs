//! Puts file, variables and flags together, and remembers where each value came from.

use std::path::Path;

use anyhow::{Context, bail};
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};

use super::{Config, Flags};

/// The prefix of variables.
const PREFIX: &str = "INTERFLOW_";

/// The settings with their sources.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    figment: Figment,
}

/// Puts file, variables and flags together.
///
/// # Errors
/// A file that cannot be read or parsed, an unknown option, a value out of its type.
pub fn load(flags: &Flags) -> anyhow::Result<Loaded> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(path) = flags.file() {
        if !path.exists() {
            bail!("there is no configuration file {}", path.display());
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    // A cluster manager sets variables such as INTERFLOW_PORT for a service of this name, so what
    // names no section here is not ours.
    let sections = serde_json::to_value(Config::default())?;
    let known = move |key: &str| {
        let section = key.split("__").next().unwrap_or(key).to_ascii_lowercase();
        sections.get(section).is_some()
    };
    figment = figment
        .merge(Env::prefixed(PREFIX).filter(move |key| known(key.as_str())).split("__"))
        .merge(FlagProvider(flags.clone()));
    let config: Config = figment.extract().context("the configuration is not valid")?;
    if config.tls.cert.is_some() != config.tls.key.is_some() {
        bail!("a certificate needs its key: set both --tls-cert and --tls-key");
    }
    config.meta.check()?;
    config.node.check()?;
    config.logstore.check()?;
    Ok(Loaded { config, figment })
}

/// The flags as a source of their own.
struct FlagProvider(Flags);

impl figment::Provider for FlagProvider {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("flag")
    }

    fn data(
        &self,
    ) -> figment::error::Result<figment::value::Map<figment::Profile, figment::value::Dict>> {
        Serialized::globals(&self.0).data()
    }
}

impl Loaded {
    /// Every setting: its name, value as JSON, and where the value came from.
    pub fn values(&self) -> anyhow::Result<Vec<(String, String, String)>> {
        let mut rows = Vec::new();
        walk("", &serde_json::to_value(&self.config)?, &mut rows);
        Ok(rows
            .into_iter()
            .map(|(key, value)| {
                let source = self.source(&key);
                (key, value, source)
            })
            .collect())
    }

    fn source(&self, key: &str) -> String {
        let Some(metadata) = self.figment.find_metadata(key) else { return "default".into() };
        if metadata.name == "flag" {
            return "flag".into();
        }
        match &metadata.source {
            Some(figment::Source::File(path)) => format!("file {}", display(path)),
            _ if metadata.name.contains("environment") => {
                format!("variable {PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
            }
            _ => "default".into(),
        }
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// All leaves below `value`, with dotted names.
fn walk(prefix: &str, value: &serde_json::Value, rows: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                walk(&name, value, rows);
            }
        }
        leaf => rows.push((prefix.to_owned(), leaf.to_string())),
    }
}
