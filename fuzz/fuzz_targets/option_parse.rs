//! The option list of a TCP header from a hostile peer: read without harm, and what is read prints as it stood.
#![no_main]

use handshake::option::{IdentityOption, OptionError, find};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(option) = IdentityOption::parse(bytes) {
        assert_eq!(option.to_bytes(), bytes);
    }
    match find(bytes) {
        Ok(Some(option)) => {
            let ours = option.to_bytes();
            assert!(bytes.windows(ours.len()).any(|window| window == ours));
        }
        Ok(None) => {}
        Err(OptionError::Foreign) => panic!("another experiment's option is no error"),
        Err(_) => {}
    }
});
