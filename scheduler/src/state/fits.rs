//! The one admission rule: whether an instance fits a host. The pass calls it to choose, apply calls it to commit.
