//! `interflow meta`: the real binary serves a store, checks it, dumps it and fills another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use interflow_meta::levels::Levels;
use interflow_meta::nodes::{self, Node};
use interflow_meta::{
    Env, Meta, NodeId, RemoteOptions, RemoteStore, Token, cluster, producers, users,
};

const TOKEN: &str = "a-token-of-the-test";

fn interflow(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_interflow"));
    command.arg("meta").args(arguments).env("INTERFLOW_META_TOKEN", TOKEN);
    command
}

fn run(arguments: &[&str]) -> Output {
    interflow(arguments).output().unwrap()
}

/// What it printed, if it ended well.
#[track_caller]
fn done(output: &Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out
}

/// What it printed, if it didn't.
#[track_caller]
fn failed(output: &Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    format!("{out}{err}")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A server; ends with its value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(data: &Path) -> Self {
        let data = data.to_str().unwrap();
        let mut child = interflow(&["serve", "--data-dir", data, "--listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let port = line.trim_end().rsplit_once(':').expect(&line).1.parse().unwrap();
        Self { child, port }
    }

    fn store(&self) -> String {
        format!("remote:127.0.0.1:{}", self.port)
    }

    /// Stops it as an operator does.
    fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The metadata behind a server.
async fn meta(server: &Server) -> Meta {
    let token = Some(Token::new(TOKEN).unwrap());
    let options = RemoteOptions { token, ..RemoteOptions::new("127.0.0.1", server.port) };
    let store = RemoteStore::connect(options).await.unwrap();
    Meta::new(std::sync::Arc::new(store), Env::default(), "interflow")
}

async fn fill(server: &Server) {
    let meta = meta(server).await;
    let user = &users::User { password_hash: "$argon2id$".into(), changed_ms: 1 };
    meta.transact(|tx| async move {
        cluster::join_or_create(&tx, uuid::Uuid::from_u128(1), 1, Levels::SUPPORTED).await?;
        users::put(&tx, "al", user)?;
        producers::allocate(&tx, 5).await?;
        Ok::<_, cluster::ClusterError>(())
    })
    .await
    .unwrap();
    meta.close().await;
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_goes_from_store_to_store_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (path(&folder, "one"), path(&folder, "two"));
    let (first, second, third) = (path(&folder, "1"), path(&folder, "2"), path(&folder, "3"));

    let server = Server::start(Path::new(&one));
    fill(&server).await;
    assert!(done(&run(&["check", "--meta", &server.store()])).ends_with("0 problems\n"));
    assert!(done(&run(&["dump", &first, "--meta", &server.store()])).starts_with("4 rows in "));
    server.stop();

    // The folder of a server that has stopped is an embedded store.
    assert!(done(&run(&["check", "--data-dir", &one])).ends_with("0 problems\n"));
    done(&run(&["restore", &first, "--data-dir", &two]));
    done(&run(&["dump", &second, "--data-dir", &two]));
    let refused = failed(&run(&["restore", &first, "--data-dir", &two]));
    assert!(refused.contains("--replace"), "{refused}");
    done(&run(&["restore", &first, "--replace", "--data-dir", &two]));

    let server = Server::start(Path::new(&two));
    done(&run(&["dump", &third, "--meta", &server.store()]));
    let bytes = |path: &str| std::fs::read(path).unwrap();
    assert_eq!(bytes(&first), bytes(&second));
    assert_eq!(bytes(&first), bytes(&third));
    // A dump is never written over.
    failed(&run(&["dump", &third, "--meta", &server.store()]));
    assert_eq!(bytes(&first), bytes(&third));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_and_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    fill(&server).await;
    let meta = meta(&server).await;
    // As a user's row looks, with nothing that decodes; the root is the tuple ("interflow").
    let key = b"\x02interflow\0\x02user\0\x02bo\0".to_vec();
    let key = &key;
    meta.transact(|tx| async move { tx.set(key.clone(), vec![0xff]) }).await.unwrap();
    let found = failed(&run(&["check", "--meta", &server.store()]));
    assert!(found.contains("problem: (\"user\", \"bo\"): damaged metadata: user"), "{found}");
    assert!(found.ends_with("1 problems\n"), "{found}");
}

/// Registers a node that works with feature levels from 1 to `max`.
async fn register(meta: &Meta, node: u32, max: u32) {
    let levels = Levels::new(1, max).unwrap();
    let new = &Node { levels, ..Node::default() };
    meta.transact(|tx| async move { nodes::register(&tx, NodeId(node), new).await }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feature_level_is_shown_and_never_lowered() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let store = ["--meta", &server.store()];
    let upgrade = |more: &[&str]| run(&[&["upgrade"], &store[..], more].concat());
    assert!(failed(&upgrade(&[])).contains("there is no cluster"));
    fill(&server).await;
    let meta = meta(&server).await;
    let (known, unknown) = (Levels::SUPPORTED.max(), Levels::SUPPORTED.max() + 1);
    register(&meta, 1, known).await;
    register(&meta, 2, unknown).await;
    let [first, second] = [known, unknown].map(|max| Levels::new(1, max).unwrap());

    for more in [&[][..], &["--dry-run"], &["--level", &known.to_string()]] {
        let shown = done(&upgrade(more));
        let nodes = format!("NODE  LEVELS\n1     {first}\n2     {second}\n");
        assert!(shown.starts_with(&nodes), "{shown}");
        assert!(shown.contains(&format!("feature level is {known}: nothing")), "{shown}");
    }
    let told = failed(&upgrade(&["--level", &unknown.to_string()]));
    assert!(told.contains(&format!("not {unknown}: take a later version")), "{told}");
    assert!(failed(&upgrade(&["--level", "0"])).contains("never lowered"));
    let checked = done(&run(&["check", "--meta", &server.store()]));
    let note = format!("note: nodes work with different feature levels: {first} (");
    assert!(checked.contains(&note), "{checked}");
    assert!(checked.ends_with("0 problems\n"), "{checked}");
}

/// A level that this build doesn't know is refused by all that would work with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feature_level_of_a_later_version_is_refused_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let meta = meta(&server).await;
    meta.transact(|tx| async move {
        let later = Levels::new(99, 99).unwrap();
        cluster::join_or_create(&tx, uuid::Uuid::from_u128(1), 1, later).await
    })
    .await
    .unwrap();
    let told = failed(&run(&["upgrade", "--meta", &server.store()]));
    let expected = format!(
        "the metadata has feature level 99; this build works with {}: start the version of \
         interflow that raised it, or a later one",
        Levels::SUPPORTED
    );
    assert!(told.contains(&expected), "{told}");
    let before = cluster::get(&meta.begin()).await.unwrap();

    let mut standalone = Command::new(env!("CARGO_BIN_EXE_interflow"));
    standalone.args(["standalone", "--meta", &server.store()]);
    standalone.args(["--data-dir", &path(&folder, "data")]).env("INTERFLOW_META_TOKEN", TOKEN);
    for listener in ["mqtt", "ws", "kafka", "admin"] {
        standalone.args([&format!("--{listener}-port"), "0"]);
    }
    let told = failed(&standalone.output().unwrap());
    assert!(told.contains(&expected), "{told}");
    // Nothing was changed by the attempt.
    assert_eq!(cluster::get(&meta.begin()).await.unwrap(), before);
    assert_eq!(nodes::list(&meta.begin()).await.unwrap(), []);
}

#[test]
fn what_is_wrong_is_told_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let missing = path(&folder, "missing");
    let told = failed(&run(&["check", "--data-dir", &missing]));
    assert!(told.contains("there is no metadata in") && told.contains("--data-dir"), "{told}");
    assert!(!Path::new(&missing).exists());
    let told = failed(&run(&["restore", &missing, "--data-dir", &path(&folder, "new")]));
    assert!(told.contains("cannot open"), "{told}");
    assert!(!folder.path().join("new").exists());

    let server = Server::start(folder.path());
    let told = failed(&run(&["check", "--data-dir", folder.path().to_str().unwrap()]));
    assert!(told.contains("another interflow runs on"), "{told}");
    let wrong = interflow(&["check", "--meta", &server.store()])
        .env("INTERFLOW_META_TOKEN", "another-token-of-the-test")
        .output()
        .unwrap();
    assert!(failed(&wrong).contains("the token is wrong"));
    let none = interflow(&["check", "--meta", &server.store()])
        .env_remove("INTERFLOW_META_TOKEN")
        .output()
        .unwrap();
    assert!(failed(&none).contains("a token is needed"));

    // A text file as a dump.
    let text = path(&folder, "text");
    std::fs::write(&text, "nothing that was dumped").unwrap();
    let told = failed(&run(&["restore", &text, "--meta", &server.store()]));
    assert!(told.contains("this is no dump of metadata"), "{told}");
}

/// Beyond loopback nobody is let in unasked, so the server doesn't start.
#[test]
fn a_server_for_anybody_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut child = interflow(&["serve", "--data-dir", data, "--listen", "0.0.0.0:0"])
        .env_remove("INTERFLOW_META_TOKEN")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(told.contains("needs a token"), "{told}");
}
