//! How enums cross the wire. A number that means nothing, and 0 unless the API gives it a meaning, is refused: an old program must
//! not take a new word for a different one.

use crate::problem::Problem;

/// The problem of a number that is no word.
pub(crate) fn unknown(expected: &str, number: i32) -> Problem {
    let found = if number == 0 { "nothing".to_owned() } else { format!("the unknown number {number}") };
    Problem::new("", expected, found)
}

/// The problem of a number beyond its range.
pub(crate) fn port(number: u32) -> Result<u16, Problem> {
    u16::try_from(number).map_err(|_| Problem::new("", "a port from 1 to 65535", number.to_string()))
}

/// Conversions of an enum whose variants have the same names here and in the API, with `0 => Variant` where 0 has a meaning.
macro_rules! wire_enum {
    ($domain:ident, $expected:literal, { $($variant:ident),* $(,)? } $(, 0 => $zero:ident)?) => {
        impl From<$domain> for $crate::v1::$domain {
            fn from(word: $domain) -> Self {
                match word { $($domain::$variant => Self::$variant,)* }
            }
        }
        $crate::wire::wire_enum!(@numbers $domain, $domain, $expected, { $($variant),* } $(, 0 => $zero)?);
    };
    ($domain:ident as $message:ident, $expected:literal, { $($variant:ident),* $(,)? } $(, 0 => $zero:ident)?) => {
        impl From<$domain> for $crate::v1::$message {
            fn from(word: $domain) -> Self {
                match word { $($domain::$variant => Self::$variant,)* }
            }
        }
        $crate::wire::wire_enum!(@numbers $domain, $message, $expected, { $($variant),* } $(, 0 => $zero)?);
    };
    (@numbers $domain:ident, $message:ident, $expected:literal, { $($variant:ident),* } $(, 0 => $zero:ident)?) => {
        impl From<$domain> for i32 {
            fn from(word: $domain) -> Self {
                $crate::v1::$message::from(word) as Self
            }
        }

        impl TryFrom<$crate::v1::$message> for $domain {
            type Error = $crate::problem::Problems;

            fn try_from(message: $crate::v1::$message) -> Result<Self, Self::Error> {
                match message {
                    $($crate::v1::$message::$variant => Ok(Self::$variant),)*
                    $crate::v1::$message::Unspecified => {
                        $(return Ok(Self::$zero);)?
                        #[allow(unreachable_code)]
                        Err($crate::wire::unknown($expected, 0).into())
                    }
                }
            }
        }

        impl TryFrom<i32> for $domain {
            type Error = $crate::problem::Problems;

            fn try_from(number: i32) -> Result<Self, Self::Error> {
                match $crate::v1::$message::try_from(number) {
                    Ok(message) => message.try_into(),
                    Err(_) => Err($crate::wire::unknown($expected, number).into()),
                }
            }
        }
    };
}

pub(crate) use wire_enum;
