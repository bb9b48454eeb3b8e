//! Conversions between these types and the API's messages.
