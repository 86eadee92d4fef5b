//! What took part in a run: the machine, and which version of everything.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Cores, processor, memory, kernel and the file system of `scratch`; commit and compiler.
pub fn machine(scratch: &Path) -> BTreeMap<String, String> {
    let mut about = BTreeMap::new();
    let mut put = |key: &str, value: String| about.insert(key.to_owned(), value);
    put("commit", first_line("git", &["describe", "--always", "--dirty", "--abbrev=12"]));
    put("kernel", first_line("uname", &["-sr"]));
    put("cores", first_line("nproc", &[]));
    put("rustc", first_line("rustc", &["--version"]));
    put("interflow", env!("CARGO_PKG_VERSION").to_owned());
    put("cpu", keyed("/proc/cpuinfo", "model name"));
    put("memory", keyed("/proc/meminfo", "MemTotal"));
    let scratch = scratch.display().to_string();
    put("file system", first_line("stat", &["-f", "-c", "%T", &scratch]));
    about
}

/// Apache Kafka's, from the name of its broker's jar in `jars`.
pub fn kafka(jars: &Path) -> String {
    let names = fs::read_dir(jars).into_iter().flatten().flatten();
    let version = names.filter_map(|entry| kafka_of_jar(entry.file_name().to_str()?)).next();
    version.unwrap_or_else(unknown)
}

fn kafka_of_jar(name: &str) -> Option<String> {
    let version = name.strip_prefix("kafka_2.13-")?.strip_suffix(".jar")?;
    Some(version.to_owned())
}

/// Java's.
pub fn java() -> String {
    first_line("java", &["-version"])
}

/// librdkafka's, which is compiled in.
pub fn librdkafka() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// mosquitto's.
pub fn mosquitto() -> String {
    first_line("mosquitto", &["-h"])
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// The first line that a program prints, on either output.
fn first_line(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return unknown() };
    let printed = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&printed);
    text.lines().next().map_or_else(unknown, |line| line.trim().to_owned())
}

/// What stands behind a key and a colon in a file of /proc.
fn keyed(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(unknown, |(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jar_names_its_version() {
        assert_eq!(kafka_of_jar("kafka_2.13-4.4.0.jar").as_deref(), Some("4.4.0"));
        assert_eq!(kafka_of_jar("kafka-clients-4.4.0.jar"), None);
    }

    #[test]
    fn the_machine_is_described() {
        let about = machine(Path::new("/"));
        assert!(about.values().all(|value| !value.is_empty()), "{about:?}");
        assert!(about.get("memory").is_some_and(|value| value.ends_with("kB")), "{about:?}");
    }
}
