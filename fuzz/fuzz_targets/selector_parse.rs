//! Any text as a selector: read or refused with places in bounds; what is read prints and reads back as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::namespace::NamespacePath;
use policy::selector::Selector;

fuzz_target!(|text: &str| {
    match Selector::parse(text) {
        Ok(parsed) => {
            let printed = parsed.selector.to_string();
            if printed.len() <= policy::selector::SELECTOR_LEN_MAX {
                assert_eq!(printed.parse::<Selector>().as_ref(), Ok(&parsed.selector), "{printed}");
            }
            for problem in parsed.problems(&NamespacePath::root()) {
                assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
            }
        }
        Err(error) => {
            assert!(!error.0.is_empty());
            for problem in error.0 {
                assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
            }
        }
    }
});
