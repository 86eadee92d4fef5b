//! Names of topics (K13).

/// The longest name of a topic, in bytes, as in Kafka: a file name of a partition must hold it.
pub const MAX_NAME_BYTES: usize = 249;

/// Why a name can't be a topic's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("the topic name is empty")]
    Empty,
    /// It is `.` or `..`.
    #[error("a topic can't be named '.' or '..'")]
    Dots,
    /// It is too long.
    #[error("the topic name is longer than {MAX_NAME_BYTES} characters")]
    TooLong,
    /// It has a character outside `[A-Za-z0-9._-]`.
    #[error("the topic name holds a character other than ASCII letters, digits, '.', '_' and '-'")]
    Character,
}

/// Whether `name` can be a topic's: 1 to 249 of `[A-Za-z0-9._-]`, neither `.` nor `..`.
///
/// # Errors
/// The rule that it breaks.
pub fn check(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        Ok(())
    } else {
        Err(NameError::Character)
    }
}

/// Whether both names are one in places that know no dots (metrics of Kafka's tools): there `.` is written `_`.
pub fn collide(a: &str, b: &str) -> bool {
    let dotless = |byte: u8| if byte == b'.' { b'_' } else { byte };
    a.len() == b.len() && a.bytes().map(dotless).eq(b.bytes().map(dotless))
}

/// The form of `name` that is the same for all names that [`collide`] with it.
pub(super) fn folded(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k13_names_follow_kafkas_rules() {
        for good in ["a", "A-1_b.c", "...", "_", &"x".repeat(249)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", NameError::Empty),
            (".", NameError::Dots),
            ("..", NameError::Dots),
            ("a/b", NameError::Character),
            ("ä", NameError::Character),
            ("a b", NameError::Character),
            ("a\0", NameError::Character),
        ] {
            assert_eq!(check(bad), Err(why), "{bad}");
        }
        assert_eq!(check(&"x".repeat(250)), Err(NameError::TooLong));
    }

    #[test]
    fn k13_dot_and_underscore_collide() {
        assert!(collide("a.b", "a_b"));
        assert!(collide("a.b_c", "a_b.c"));
        assert!(!collide("a.b", "a-b"));
        assert!(!collide("a.b", "a.bc"));
        assert_eq!(folded("a.b_c"), folded("a_b.c"));
    }
}
