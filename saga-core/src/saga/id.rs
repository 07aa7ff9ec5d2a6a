//! Business keys.

use super::ReadError;
use uuid::Uuid;

/// What can be a saga's id: `Uuid`, an integer, or a string that is not empty. Its text in the tables is exact.
pub trait SagaId: Sized + Send {
    /// The text that identifies the instance.
    fn to_text(&self) -> String;
    /// Checks a text that came in a header.
    fn parse(text: &str) -> Result<Self, ReadError>;
}

macro_rules! by_display {
    ($($t:ty)+) => {$(
        impl SagaId for $t {
            fn to_text(&self) -> String { self.to_string() }
            fn parse(text: &str) -> Result<Self, ReadError> {
                text.parse().map_err(|_| ReadError(format!("saga-id `{text}` is not a {}", stringify!($t))))
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
}
