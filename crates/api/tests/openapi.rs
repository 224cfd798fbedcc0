//! The OpenAPI document is committed, so that a change of the API is seen in review. `STOLOS_GOLDEN=accept cargo test -p api
//! --test openapi` writes it anew.

use std::fs;
use std::path::Path;

#[test]
fn the_committed_document_is_what_the_server_serves() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/openapi.json");
    let document = api::openapi::document();
    let text = serde_json::to_string_pretty(&document).expect("a value can be written") + "\n";
    if std::env::var("STOLOS_GOLDEN").is_ok_and(|value| value == "accept") {
        fs::write(&path, text).expect("the file can be written");
        return;
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == text,
        "the API has changed; see how: STOLOS_GOLDEN=accept cargo test -p api --test openapi; git diff"
    );
}
