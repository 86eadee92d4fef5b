//! Users: `("user", name)`.

use bytes::Bytes;
use interflow_proto::meta as proto;

use super::codec::{bad_key, decode, encode};
use crate::error::MetaError;
use crate::store::KeyRange;
use crate::transaction::{RangeOptions, Transaction, Watch};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// A PHC string, made by the caller (argon2).
    pub password_hash: String,
    /// Milliseconds since 1970.
    pub changed_ms: i64,
}

fn key(tx: &Transaction, name: &str) -> Vec<u8> {
    tx.root().pack(&("user", name))
}

fn change_key(tx: &Transaction) -> Vec<u8> {
    tx.root().pack(&("change", "users"))
}

/// Adds the user `name`, or gives it another password.
///
/// # Errors
/// Meta's own.
pub fn put(tx: &Transaction, name: &str, user: &User) -> Result<(), MetaError> {
    tx.set(key(tx, name), user.encode())?;
    tx.add(change_key(tx), 1)
}

/// The user `name`.
///
/// # Errors
/// Meta's own.
pub async fn get(tx: &Transaction, name: &str) -> Result<Option<User>, MetaError> {
    let value = tx.get(&key(tx, name)).await?;
    value.map(User::decode).transpose()
}

/// Removes the user `name`; `false` when there was none.
///
/// # Errors
/// Meta's own.
pub async fn remove(tx: &Transaction, name: &str) -> Result<bool, MetaError> {
    let existed = get(tx, name).await?.is_some();
    if existed {
        tx.clear(key(tx, name))?;
        tx.add(change_key(tx), 1)?;
    }
    Ok(existed)
}

/// There is at least one user.
///
/// # Errors
/// Meta's own.
pub async fn any(tx: &Transaction) -> Result<bool, MetaError> {
    let (begin, end) = tx.root().subspace(&"user").range();
    let page = tx.get_range(&KeyRange::new(begin, end), RangeOptions::limit(1)).await?;
    Ok(!page.rows.is_empty())
}

/// All users by name.
///
/// # Errors
/// Meta's own.
pub async fn list(tx: &Transaction) -> Result<Vec<(String, User)>, MetaError> {
    let (begin, end) = tx.root().subspace(&"user").range();
    let rows = tx.get_all(&KeyRange::new(begin, end)).await?;
    rows.into_iter()
        .map(|(key, value)| {
            let (_, name): (String, String) = tx.root().unpack(&key).map_err(bad_key("user"))?;
            Ok((name, User::decode(value)?))
        })
        .collect()
}

/// Tells of the next change of any user after what this transaction sees.
///
/// # Errors
/// Meta's own.
pub async fn watch(tx: &Transaction) -> Result<Watch, MetaError> {
    tx.watch(change_key(tx)).await
}

impl User {
    fn encode(&self) -> Bytes {
        encode(&proto::User {
            password_hash: self.password_hash.clone(),
            changed_ms: self.changed_ms,
        })
    }

    pub(super) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::User = decode(value, "user")?;
        Ok(Self { password_hash: message.password_hash, changed_ms: message.changed_ms })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use super::*;
    use crate::testing::TestBed;

    #[tokio::test]
    async fn users_come_and_go_and_tell() {
        let bed = TestBed::new();
        let user = User { password_hash: "$argon2".to_owned(), changed_ms: 1 };
        let tx = bed.meta.begin();
        assert!(!any(&tx).await.unwrap());
        let watching = watch(&tx).await.unwrap();
        tx.commit().await.unwrap();
        let tx = bed.meta.begin();
        put(&tx, "bo", &user).unwrap();
        put(&tx, "al", &user).unwrap();
        tx.commit().await.unwrap();
        watching.changed().await.unwrap();
        let tx = bed.meta.begin();
        assert_eq!(get(&tx, "al").await.unwrap(), Some(user));
        let names: Vec<_> = list(&tx).await.unwrap().into_iter().map(|u| u.0).collect();
        assert_eq!(names, ["al", "bo"]);
        assert!(remove(&tx, "al").await.unwrap());
        assert!(!remove(&tx, "al").await.unwrap());
        assert!(any(&tx).await.unwrap());
    }

    proptest! {
        #[test]
        fn a_user_comes_back_as_it_was(password_hash in ".{0,30}", changed_ms: i64) {
            let user = User { password_hash, changed_ms };
            prop_assert_eq!(User::decode(user.encode()).unwrap(), user);
        }
    }
}
