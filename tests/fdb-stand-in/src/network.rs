//! The network thread: every operation runs on it, and every callback comes from it.

use std::pin::Pin;
use std::sync::LazyLock;

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;

use crate::error::{
    API_VERSION_ALREADY_SET, API_VERSION_INVALID, API_VERSION_NOT_SUPPORTED, API_VERSION_UNSET,
    Code, INTERNAL_ERROR, NETWORK_ALREADY_SETUP, NETWORK_CANNOT_BE_RESTARTED, NETWORK_NOT_SETUP,
};

/// The API version that this stands in for.
pub(crate) const API_VERSION: i32 = 730;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Network {
    stage: Mutex<Stage>,
    stop: CancellationToken,
}

enum Stage {
    Unset,
    Selected,
    Setup(UnboundedReceiver<Task>),
    Started,
}

static NETWORK: LazyLock<Network> =
    LazyLock::new(|| Network { stage: Mutex::new(Stage::Unset), stop: CancellationToken::new() });
/// The sender of the network that was set up.
static TASKS: Mutex<Option<UnboundedSender<Task>>> = Mutex::new(None);

/// Chooses the API version, once.
pub(crate) fn select(runtime: i32, header: i32) -> Result<(), Code> {
    let mut stage = NETWORK.stage.lock();
    match *stage {
        Stage::Unset if runtime > header || runtime < 13 => Err(API_VERSION_INVALID),
        Stage::Unset if header > API_VERSION => Err(API_VERSION_NOT_SUPPORTED),
        Stage::Unset => {
            *stage = Stage::Selected;
            Ok(())
        }
        _ => Err(API_VERSION_ALREADY_SET),
    }
}

/// Prepares the network, once.
pub(crate) fn setup() -> Result<(), Code> {
    let mut stage = NETWORK.stage.lock();
    match *stage {
        Stage::Unset => Err(API_VERSION_UNSET),
        Stage::Selected => {
            let (tasks, receiver) = unbounded_channel();
            *TASKS.lock() = Some(tasks);
            *stage = Stage::Setup(receiver);
            Ok(())
        }
        _ => Err(NETWORK_ALREADY_SETUP),
    }
}

/// Is the network thread until it is stopped.
pub(crate) fn run() -> Result<(), Code> {
    let mut tasks = {
        let mut stage = NETWORK.stage.lock();
        match std::mem::replace(&mut *stage, Stage::Started) {
            Stage::Setup(tasks) => tasks,
            Stage::Started => return Err(NETWORK_CANNOT_BE_RESTARTED),
            before => {
                *stage = before;
                return Err(NETWORK_NOT_SETUP);
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(|_| INTERNAL_ERROR)?.block_on(async {
        loop {
            tokio::select! {
                () = NETWORK.stop.cancelled() => return,
                task = tasks.recv() => match task {
                    Some(task) => drop(tokio::spawn(task)),
                    None => return,
                },
            }
        }
    });
    Ok(())
}

/// Ends the network thread.
pub(crate) fn stop() -> Result<(), Code> {
    if matches!(*NETWORK.stage.lock(), Stage::Unset | Stage::Selected) {
        return Err(NETWORK_NOT_SETUP);
    }
    NETWORK.stop.cancel();
    Ok(())
}

/// Runs `task` on the network thread. After its end nothing runs any more.
pub(crate) fn post(task: impl Future<Output = ()> + Send + 'static) {
    if let Some(tasks) = &*TASKS.lock() {
        // Refused once the thread has ended.
        let _ = tasks.send(Box::pin(task));
    }
}
