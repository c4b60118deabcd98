//! The doors between Python and the core.
