//! Cases and properties of the state.
