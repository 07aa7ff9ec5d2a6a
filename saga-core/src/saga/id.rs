//! Business keys.

use super::ReadError;
use uuid::Uuid;

/// The longest id, in bytes: it is part of an index's key.
pub(super) const ID_BYTES_MAX: usize = 1000;

/// What can be a saga's id: `Uuid`, an integer, a string that is not empty, or a tuple of up to four such.
///
/// One id has one text: [`to_text`](Self::to_text) writes it, and the tables find the instance by it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the id of a saga",
    label = "not an id",
    note = "an id is a `Uuid`, `i32`, `i64`, `u32`, `u64` or `String`, or has up to four such parts: \
            `id = (a: A, b: B)`",
    note = "a type of your own implements `SagaId`"
)]
pub trait SagaId: Sized + Send {
    /// The text that identifies the instance.
    fn to_text(&self) -> String;

    /// Reads a text from a header, in any spelling of the id.
    ///
    /// # Errors
    /// When the text is not an id.
    fn parse(text: &str) -> Result<Self, ReadError>;

    /// Whether it is empty, or one of its parts is: such a text could not be read again.
    #[doc(hidden)]
    fn __is_incomplete(&self) -> bool {
        self.to_text().is_empty()
    }

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
        #[diagnostic::do_not_recommend] // in the list beside an error, that is: the text above has all
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

#[diagnostic::do_not_recommend]
impl SagaId for String {
    fn to_text(&self) -> String {
        self.clone()
    }
    fn __is_incomplete(&self) -> bool {
        self.is_empty()
    }
    fn parse(text: &str) -> Result<Self, ReadError> {
        if text.is_empty() {
            return Err(ReadError("saga-id is empty".into()));
        }
        Ok(text.to_owned())
    }
}

/// Several fields together: their texts with `/` between them, in which `/` and `%` are written `%2F` and `%25`.
macro_rules! of_parts {
    ($($part:ident)+) => {
        #[allow(non_snake_case)]
        #[diagnostic::do_not_recommend]
        impl<$($part: SagaId),+> SagaId for ($($part,)+) {
            fn to_text(&self) -> String {
                let ($($part,)+) = self;
                [$($part.to_text().replace('%', "%25").replace('/', "%2F")),+].join("/")
            }
            fn __is_incomplete(&self) -> bool {
                let ($($part,)+) = self;
                [$($part.__is_incomplete()),+].contains(&true)
            }
            fn parse(text: &str) -> Result<Self, ReadError> {
                let mut parts = text.split('/').map(|part| part.replace("%2F", "/").replace("%25", "%"));
                let mut next = || parts.next().ok_or_else(|| ReadError(format!("saga-id `{text}` has too few parts")));
                let id = ($($part::parse(&next()?)?,)+);
                match parts.next() {
                    None => Ok(id),
                    Some(_) => Err(ReadError(format!("saga-id `{text}` has too many parts"))),
                }
            }
        }
    };
}
of_parts!(A B);
of_parts!(A B C);
of_parts!(A B C D);

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
    fn several_parts_make_one_text_that_tells_them_apart() {
        let id = ("a/b".to_owned(), 7_u64, "100%2F".to_owned());
        assert_eq!(id.to_text(), "a%2Fb/7/100%252F");
        assert_eq!(<(String, u64, String)>::parse(&id.to_text()).unwrap(), id);
        assert_eq!(<(u64, u64)>::canonical("007/+5").unwrap(), "7/5");
        assert!(!id.__is_incomplete());
        assert!(("a".to_owned(), 7_u64, String::new()).__is_incomplete(), "it could not be read again");
        for text in ["7", "7/8/9", "/8", "x/8"] {
            assert!(<(u64, u64)>::canonical(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let longest = "x".repeat(1000);
        assert_eq!(String::canonical(&longest).unwrap(), longest);
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
