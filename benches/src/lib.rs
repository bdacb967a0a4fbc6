//! `rambutan bench` takes timings, `record` keeps them, NOTES.md says what was tried.
