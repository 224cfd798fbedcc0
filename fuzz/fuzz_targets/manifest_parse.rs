//! Any text as a file of manifests: read or refused with places in bounds that can be shown; a policy that is read
//! writes itself as a document that reads back as the same policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::diagnostic::{Problem, Style, render};
use policy::manifest;
use policy::namespace::NamespacePath;
use policy::syntax::parse_documents;

fn check(problems: Vec<Problem>, text: &str) {
    for problem in problems {
        assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
        let shown = render(&[problem.locate(Some("file"), text)], text, Style::Plain);
        assert!(!shown.contains('\u{1b}'));
    }
}

fuzz_target!(|text: &str| {
    let (documents, problems) = parse_documents(text);
    assert!(!documents.is_empty() || !problems.is_empty());
    check(problems, text);
    for document in documents {
        let (policy, problems) = manifest::policy(&document.root, text, &NamespacePath::root());
        check(problems, text);
        check(manifest::protection(&document.root, text).1, text);
        if let Some(policy) = policy {
            let yaml = manifest::to_yaml(&policy);
            assert_eq!(manifest::policy_document(&yaml).as_ref(), Ok(&policy), "{yaml}");
        }
    }
});
