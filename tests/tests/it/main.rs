//! The scenarios that cross crates, one test binary.

mod tidy;
