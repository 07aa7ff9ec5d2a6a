//! Business keys.

use super::ReadError;
use uuid::Uuid;

/// The longest id, in bytes: it is part of an index's key.
const ID_BYTES_MAX: usize = 1000;

/// What can be a saga's id: `Uuid`, an integer, or a string that is not empty.
///
/// One id has one text: [`to_text`](Self::to_text) writes it, and the tables find the instance by it.
pub trait SagaId: Sized + Send {
    /// The text that identifies the instance.
    fn to_text(&self) -> String;

    /// Reads a text from a header, in any spelling of the id.
    ///
    /// # Errors
    /// When the text is not an id.
    fn parse(text: &str) -> Result<Self, ReadError>;

    /// The one text of the id that `text` spells: `{6B62B01B-…}` is `6b62b01b-…`, `007` is `7`.
    ///
    /// # Errors
    /// When the text is not an id, or the id cannot be a key: it is empty, longer than 1,000 bytes, contains U+0000, or
    /// becomes another id when it is read again.
    fn canonical(text: &str) -> Result<String, ReadError> {
        let canonical = Self::parse(text)?.to_text();
        let fault = if canonical.is_empty() {
            "is empty"
        } else if canonical.len() > ID_BYTES_MAX {
            "is longer than 1000 bytes"
        } else if canonical.contains('\0') {
            "contains U+0000, which no database can store in a text"
        } else if Self::parse(&canonical).is_ok_and(|again| again.to_text() == canonical) {
            return Ok(canonical);
        } else {
            "is another id when it is read again"
        };
        let shown: String = text.chars().take(100).collect();
        Err(ReadError(format!("saga-id `{}` {fault}", shown.escape_debug())))
    }
}

macro_rules! by_display {
    ($($t:ty)+) => {$(
        impl SagaId for $t {
            fn to_text(&self) -> String { self.to_string() }
            fn parse(text: &str) -> Result<Self, ReadError> {
                text.parse().map_err(|_| {
                    let shown: String = text.chars().take(100).collect();
                    ReadError(format!("saga-id `{}` is not a {}", shown.escape_debug(), stringify!($t)))
                })
            }
        }
    )+};
}
by_display!(Uuid i32 i64 u32 u64);

impl SagaId for String {
    fn to_text(&self) -> String {
        self.clone()
    }
    fn parse(text: &str) -> Result<Self, ReadError> {
        if text.is_empty() {
            return Err(ReadError("saga-id is empty".into()));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_exact_text() {
        assert_eq!(u64::parse("18446744073709551615").unwrap().to_text(), "18446744073709551615");
        assert_eq!(i64::parse("-5").unwrap().to_text(), "-5");
        assert_eq!(Uuid::nil().to_text(), "00000000-0000-0000-0000-000000000000");
        assert_eq!(u32::parse("x").unwrap_err().0, "saga-id `x` is not a u32");
    }

    #[test]
    fn every_spelling_of_an_id_has_one_text() {
        let one = "6b62b01b-0a1c-4c2e-9c64-3f0c4d1f9a77";
        let upper = one.to_uppercase();
        let spellings =
            [one.into(), upper.clone(), format!("{{{upper}}}"), one.replace('-', ""), format!("urn:uuid:{one}")];
        for spelling in spellings {
            assert_eq!(Uuid::canonical(&spelling).unwrap(), one, "{spelling}");
        }
        assert_eq!((u64::canonical("+5").unwrap(), u64::canonical("007").unwrap()), ("5".into(), "7".into()));
        assert_eq!((i64::canonical("-0").unwrap(), i32::canonical("-007").unwrap()), ("0".into(), "-7".into()));
        assert_eq!(String::canonical(" A ").unwrap(), " A ", "a string is exact");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let long = "x".repeat(1001);
        for text in ["", "a\0b", &long] {
            assert!(String::canonical(text).is_err(), "{text:?}");
        }
        for text in ["", " 5", "5 ", "5.0", "0x5", "٥", "18446744073709551616"] {
            assert!(u64::canonical(text).is_err(), "{text:?}");
        }
        assert_eq!(
            String::canonical("a\0b").unwrap_err().0,
            "saga-id `a\\0b` contains U+0000, which no database can store in a text"
        );
    }

    /// An id that forgets what follows the first letter, and writes it twice.
    struct Forgetful(char);

    impl SagaId for Forgetful {
        fn to_text(&self) -> String {
            format!("{0}{0}", self.0)
        }
        fn parse(text: &str) -> Result<Self, ReadError> {
            let last = text.chars().last().ok_or_else(|| ReadError("empty".into()))?;
            Ok(Self(if text.len() > 1 { '!' } else { last }))
        }
    }

    #[test]
    fn an_id_that_reads_back_as_another_is_refused() {
        let error = Forgetful::canonical("a").unwrap_err().0;
        assert_eq!(error, "saga-id `a` is another id when it is read again");
    }
}
