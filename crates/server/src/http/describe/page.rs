//! The OpenAPI document as one page of HTML without script, style sheets or images from elsewhere.

use std::fmt::Write;

use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;\
    color:#1b1f23;background:#fff}code,pre{font-family:ui-monospace,monospace;font-size:.9em}h2{margin-top:3rem;\
    border-bottom:1px solid #ccc}h3{margin:2rem 0 .3rem}table{border-collapse:collapse;margin:.5rem 0;width:100%}\
    td,th{text-align:left;vertical-align:top;padding:.25rem .8rem .25rem 0;border-bottom:1px solid #eee}\
    .m{display:inline-block;min-width:4.2rem;font-weight:700}.q{color:#666}nav a{margin-right:.8rem}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#16181b}a{color:#8ab4f8}td,th{border-color:#333}}";

/// The whole page.
pub(super) fn page(document: &Value) -> String {
    let info = &document["info"];
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} API</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>{title} API <span class=\"q\">{version}</span></h1>\n<p>{summary} The same for machines: \
         <a href=\"/openapi.json\">/openapi.json</a>. Every code: <code>stolos explain code CODE</code>.</p>\n",
        title = text(&info["title"]),
        version = text(&info["version"]),
        summary = text(&info["summary"]),
    );
    let tags: Vec<&Value> = document["tags"].as_array().into_iter().flatten().collect();
    out.push_str("<nav>");
    for tag in &tags {
        let name = text(&tag["name"]);
        push(&mut out, format_args!("<a href=\"#tag-{name}\">{name}</a>"));
    }
    out.push_str("<a href=\"#schemas\">schemas</a></nav>\n");
    for tag in tags {
        let name = text(&tag["name"]);
        push(&mut out, format_args!("<h2 id=\"tag-{name}\">{name}</h2>\n<p>{}</p>\n", text(&tag["description"])));
        operations(&mut out, document, &tag["name"]);
    }
    out.push_str("<h2 id=\"schemas\">schemas</h2>\n");
    for (name, schema) in fields(&document["components"]["schemas"]) {
        component(&mut out, name, schema);
    }
    out.push_str("</body></html>\n");
    out
}

fn operations(out: &mut String, document: &Value, tag: &Value) {
    for (path, methods) in fields(&document["paths"]) {
        for (method, operation) in fields(methods) {
            if operation["tags"].as_array().is_some_and(|tags| tags.contains(tag)) {
                described(out, path, method, operation);
            }
        }
    }
}

fn described(out: &mut String, path: &str, method: &str, operation: &Value) {
    let id = text(&operation["operationId"]);
    let open = operation["security"].as_array().is_some_and(Vec::is_empty);
    let access = if open { " <span class=\"q\">for anybody</span>" } else { "" };
    push(
        out,
        format_args!(
            "<h3 id=\"{id}\"><span class=\"m\">{}</span><code>{}</code>{access}</h3>\n<p>{}</p>\n",
            method.to_ascii_uppercase(),
            escaped(path),
            text(&operation["summary"])
        ),
    );
    let parameters: Vec<&Value> = operation["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        out.push_str("<table><tr><th>parameter</th><th>type</th><th></th></tr>\n");
        for parameter in parameters {
            let place = text(&parameter["in"]);
            row(
                out,
                [&code(&parameter["name"], &place), &shape(&parameter["schema"]), &text(&parameter["description"])],
            );
        }
        out.push_str("</table>\n");
    }
    for (media, body) in fields(&operation["requestBody"]["content"]) {
        push(out, format_args!("<p>Body: <code>{}</code>, {}</p>\n", escaped(media), shape(&body["schema"])));
    }
    out.push_str("<table><tr><th>answer</th><th>body</th><th></th></tr>\n");
    for (status, answer) in fields(&operation["responses"]) {
        let held =
            fields(&answer["content"]).map(|(media, held)| format!("{} {}", escaped(media), shape(&held["schema"])));
        row(out, [&escaped(status), &held.collect::<Vec<_>>().join("<br>"), &text(&answer["description"])]);
    }
    out.push_str("</table>\n");
}

fn component(out: &mut String, name: &str, schema: &Value) {
    let name = escaped(name);
    push(
        out,
        format_args!("<h3 id=\"schema-{name}\"><code>{name}</code></h3>\n<p>{}</p>\n", text(&schema["description"])),
    );
    let required = |field: &str| schema["required"].as_array().is_some_and(|all| all.iter().any(|name| name == field));
    let mut properties = fields(&schema["properties"]).peekable();
    if properties.peek().is_none() {
        return push(out, format_args!("<p>{}</p>\n", shape(schema)));
    }
    out.push_str("<table><tr><th>field</th><th>type</th><th></th></tr>\n");
    for (field, value) in properties {
        let needed = if required(field) { "required" } else { "" };
        row(out, [&code(&Value::from(field), needed), &shape(value), &text(&value["description"])]);
    }
    out.push_str("</table>\n");
}

/// What a schema takes, in a few words, with links to the schemas it names.
fn shape(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        let name = escaped(name);
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    if let Some(word) = schema.get("const") {
        return code(word, "");
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.iter().map(|word| code(word, "")).collect::<Vec<_>>().join(", ");
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        if let Some(parts) = schema[key].as_array() {
            let parts = parts.iter().filter(|part| part["type"] != "null").map(shape).filter(|part| !part.is_empty());
            return parts.collect::<Vec<_>>().join(" | ");
        }
    }
    let named: Vec<String> = match &schema["type"] {
        Value::Array(names) => names.iter().filter(|name| *name != "null").map(text).collect(),
        one => vec![text(one)],
    };
    let mut said = named.join(" or ");
    for (key, inner) in [("items", "of"), ("additionalProperties", "to")] {
        if schema[key].is_object() {
            push(&mut said, format_args!(" {inner} {}", shape(&schema[key])));
        }
    }
    if let (Some(least), Some(most)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) {
        push(&mut said, format_args!(" {least}–{most}"));
    }
    if !schema["default"].is_null() {
        push(&mut said, format_args!(", default {}", code(&schema["default"], "")));
    }
    said
}

fn row(out: &mut String, cells: [&str; 3]) {
    push(out, format_args!("<tr><td>{}</td><td>{}</td><td>{}</td></tr>\n", cells[0], cells[1], cells[2]));
}

fn code(value: &Value, note: &str) -> String {
    let said = value.as_str().map_or_else(|| escaped(&value.to_string()), escaped);
    match note {
        "" => format!("<code>{said}</code>"),
        note => format!("<code>{said}</code> <span class=\"q\">{note}</span>"),
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(out: &mut String, what: std::fmt::Arguments<'_>) {
    // Writing to a text cannot fail.
    let _ = out.write_fmt(what);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_schema_is_on_the_page_and_nothing_comes_from_elsewhere() {
        let document = api::openapi::document();
        let page = page(&document);
        for operation in api::route::operations() {
            assert!(page.contains(&format!("<h3 id=\"{}\">", operation.id)), "{}", operation.id);
        }
        for (name, _) in fields(&document["components"]["schemas"]) {
            assert!(page.contains(&format!("<h3 id=\"schema-{name}\">")), "{name}");
        }
        for banned in ["<script", "http://", "https://", "<img", "<link", "@import"] {
            assert!(!page.contains(banned), "{banned}");
        }
    }

    #[test]
    fn text_is_text() {
        assert_eq!(escaped("<b>&\""), "&lt;b&gt;&amp;&quot;");
    }
}
