//! Users with passwords, kept in meta as Argon2 hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use async_trait::async_trait;
use interflow_meta::users::{self, User};
use interflow_meta::{Meta, MetaError};
use parking_lot::Mutex;
use ring::hmac;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Authenticator, Principal, Refused};
use crate::net::Peer;

/// Argon2 runs at once: each takes 19 MiB and tens of milliseconds of one core.
const HASHES_AT_ONCE: usize = 2;
/// Logins that wait for their turn; more are told to try again later.
const MAX_WAITING: usize = 10_000;
/// Users whose password was found right and is known again by a keyed hash, so that a fleet that
/// reconnects does not pay for Argon2 again.
const MAX_REMEMBERED: usize = 100_000;
/// The longest user name, in bytes.
const MAX_NAME_BYTES: usize = 255;
/// The longest password, in bytes.
const MAX_PASSWORD_BYTES: usize = 1_024;

/// Why users could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The name or password is not acceptable.
    #[error("{0}")]
    Invalid(&'static str),
    /// No such user.
    #[error("there is no such user")]
    NotFound,
    /// Meta or the hash function failed.
    #[error("users cannot be changed at present: {0}")]
    Unavailable(String),
}

impl From<MetaError> for UserError {
    fn from(error: MetaError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// The users, as meta has them. A copy is kept current by a watch, so that a login asks no store.
#[derive(Debug)]
pub struct Users {
    meta: Meta,
    current: ArcSwap<BTreeMap<String, Arc<str>>>,
    remembered: Mutex<Remembered>,
    hashing: Semaphore,
    waiting: Semaphore,
}

/// Keyed hashes of passwords that Argon2 found right, a user at a time. Each names the Argon2
/// hash that it was checked against, so that a changed password is not known again.
struct Remembered {
    key: hmac::Key,
    right: BTreeMap<String, (Arc<str>, hmac::Tag)>,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("users", &self.right.len()).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads the users from `meta`.
    ///
    /// # Errors
    /// Meta cannot be read.
    pub async fn open(meta: Meta) -> Result<Arc<Self>, UserError> {
        let current = read(&meta).await?;
        // Random bytes of the process; nothing outlives it.
        let key: [u8; 32] = rand::random();
        Ok(Arc::new(Self {
            meta,
            current: ArcSwap::from_pointee(current),
            remembered: Mutex::new(Remembered {
                key: hmac::Key::new(hmac::HMAC_SHA256, &key),
                right: BTreeMap::new(),
            }),
            hashing: Semaphore::new(HASHES_AT_ONCE),
            waiting: Semaphore::new(MAX_WAITING),
        }))
    }

    /// Follows changes in meta, made by this or another process, until `shutdown`.
    pub async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        loop {
            let watched = async {
                let tx = self.meta.begin();
                let watch = users::watch(&tx).await?;
                tx.commit().await?;
                Ok::<_, MetaError>(watch)
            };
            let watch = match watched.await {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::error!(%error, "users can't be followed any more: restart to see changes");
                    return;
                }
            };
            // Between the watch and this reading nothing is missed: the watch was first.
            match read(&self.meta).await {
                Ok(users) => self.current.store(Arc::new(users)),
                Err(error) => tracing::warn!(%error, "could not read the users; the old ones stay"),
            }
            tokio::select! {
                _ = watch.changed() => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.current.load().keys().cloned().collect()
    }

    /// Adds a user, or gives one a new password.
    ///
    /// # Errors
    /// An empty or too long name or password; meta.
    pub async fn add(&self, name: &str, password: &str) -> Result<(), UserError> {
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('\0') {
            return Err(UserError::Invalid("a user name has 1 to 255 bytes and no NUL"));
        }
        if password.is_empty() || password.len() > MAX_PASSWORD_BYTES {
            return Err(UserError::Invalid("a password has 1 to 1,024 bytes"));
        }
        let secret = password.as_bytes().to_vec();
        let password_hash = tokio::task::spawn_blocking(move || {
            Argon2::default().hash_password(&secret).map(|hash| hash.to_string())
        })
        .await
        .map_err(|error| UserError::Unavailable(error.to_string()))?
        .map_err(|error| UserError::Unavailable(error.to_string()))?;
        let user = User { password_hash, changed_ms: now_ms() };
        self.meta
            .transact(|tx| {
                let user = user.clone();
                async move { users::put(&tx, name, &user) }
            })
            .await?;
        self.reload().await
    }

    /// Removes a user. Connections that are open stay open.
    ///
    /// # Errors
    /// No such user; meta.
    pub async fn remove(&self, name: &str) -> Result<(), UserError> {
        let existed =
            self.meta.transact(|tx| async move { users::remove(&tx, name).await }).await?;
        self.reload().await?;
        self.remembered.lock().right.remove(name);
        if existed { Ok(()) } else { Err(UserError::NotFound) }
    }

    /// Who asked for the change sees it at once, whatever the watch does.
    async fn reload(&self) -> Result<(), UserError> {
        self.current.store(Arc::new(read(&self.meta).await?));
        Ok(())
    }

    fn is_remembered(&self, name: &str, hash: &Arc<str>, password: &[u8]) -> bool {
        let remembered = self.remembered.lock();
        remembered.right.get(name).is_some_and(|(checked, tag)| {
            checked == hash && hmac::verify(&remembered.key, password, tag.as_ref()).is_ok()
        })
    }

    fn remember(&self, name: &str, hash: Arc<str>, password: &[u8]) {
        let mut remembered = self.remembered.lock();
        if remembered.right.len() >= MAX_REMEMBERED {
            remembered.right.pop_first();
        }
        let tag = hmac::sign(&remembered.key, password);
        remembered.right.insert(name.to_owned(), (hash, tag));
    }
}

#[async_trait]
impl Authenticator for Users {
    fn is_required(&self) -> bool {
        !self.current.load().is_empty()
    }

    async fn verify(
        &self,
        user: Option<&str>,
        password: Option<&[u8]>,
        _: &Peer,
    ) -> Result<Principal, Refused> {
        let current = self.current.load_full();
        if current.is_empty() {
            return Ok(Principal::anonymous());
        }
        let (Some(name), Some(password)) = (user, password) else {
            return Err(Refused::BadCredentials);
        };
        if password.len() > MAX_PASSWORD_BYTES {
            return Err(Refused::BadCredentials);
        }
        let known = current.get(name).cloned();
        if let Some(hash) = &known
            && self.is_remembered(name, hash, password)
        {
            return Ok(Principal(name.into()));
        }
        let _waiting = self.waiting.try_acquire().map_err(|_| Refused::Unavailable)?;
        let _hashing = self.hashing.acquire().await.map_err(|_| Refused::Unavailable)?;
        // An unknown name costs the same as a wrong password, so that names can't be found out.
        let Some(hash) = known.clone().or_else(|| current.values().next().cloned()) else {
            return Err(Refused::BadCredentials);
        };
        let (secret, checked) = (password.to_vec(), hash.clone());
        let is_right = tokio::task::spawn_blocking(move || {
            PasswordHash::new(&checked)
                .is_ok_and(|hash| Argon2::default().verify_password(&secret, &hash).is_ok())
        })
        .await
        .map_err(|_| Refused::Unavailable)?;
        if !is_right || known.is_none() {
            return Err(Refused::BadCredentials);
        }
        self.remember(name, hash, password);
        Ok(Principal(name.into()))
    }
}

async fn read(meta: &Meta) -> Result<BTreeMap<String, Arc<str>>, MetaError> {
    let list = meta.transact(|tx| async move { users::list(&tx).await }).await?;
    Ok(list.into_iter().map(|(name, user)| (name, user.password_hash.into())).collect())
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Transport;
    use interflow_meta::{EmbeddedStore, Env};

    fn peer() -> Peer {
        Peer {
            address: ([127, 0, 0, 1], 1).into(),
            listener: "mqtt".into(),
            transport: Transport::Tcp,
        }
    }

    async fn users() -> Arc<Users> {
        let store = EmbeddedStore::in_memory(Env::default()).unwrap();
        Users::open(Meta::new(Arc::new(store), Env::default(), "interflow")).await.unwrap()
    }

    #[tokio::test]
    async fn without_users_nobody_is_asked() {
        let users = users().await;
        assert!(!users.is_required());
        let anyone = users.verify(Some("x"), Some(b"y"), &peer()).await;
        assert_eq!(anyone, Ok(Principal::anonymous()));
    }

    #[tokio::test]
    async fn a_changed_password_is_not_remembered() {
        let users = users().await;
        users.add("ann", "old").await.unwrap();
        assert!(users.is_required());
        let ann = Ok(Principal("ann".into()));
        let check = |password: &'static [u8]| {
            let users = users.clone();
            async move { users.verify(Some("ann"), Some(password), &peer()).await }
        };
        assert_eq!(check(b"old").await, ann);
        assert_eq!(check(b"old").await, ann);
        assert_eq!(check(b"new").await, Err(Refused::BadCredentials));
        users.add("ann", "new").await.unwrap();
        assert_eq!(check(b"old").await, Err(Refused::BadCredentials));
        assert_eq!(check(b"new").await, ann);
        let nobody = users.verify(Some("bob"), Some(b"new"), &peer()).await;
        assert_eq!(nobody, Err(Refused::BadCredentials));
        assert_eq!(users.verify(None, None, &peer()).await, Err(Refused::BadCredentials));
    }

    #[tokio::test]
    async fn removing_an_unknown_user_says_so() {
        let users = users().await;
        users.add("ann", "a").await.unwrap();
        assert!(matches!(users.remove("bob").await, Err(UserError::NotFound)));
        users.remove("ann").await.unwrap();
        assert!(users.names().is_empty());
    }
}
