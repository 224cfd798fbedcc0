//! The OpenAPI 3.1 document, made from the list of operations and the schemas of the types that cross the wire.

pub(crate) mod example;

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::apply::{ApplyRequest, ApplyResponse};
use crate::audit::AuditList;
use crate::authority::{FleetKeyRotated, NodeKeysRotated};
use crate::explain::{ExplainAnswer, ExplainRequest};
use crate::flow::{FlowList, FlowRow};
use crate::kind::{KINDS, Kind, Scope, Verb};
use crate::object::API_VERSION;
use crate::problem::{self, Problem, ProblemKind};
use crate::route::{self, Access, Body, Content, Operation, Parameter, Place};
use crate::token::{JoinTokenRequest, JoinTokenResponse};
use crate::watch::{self, WatchEvent};

/// Where components of the document are.
const COMPONENTS: &str = "#/components/schemas/";
/// The dialect of every schema here.
pub const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Name of the scheme by which operators are known.
const CLIENT_CERTIFICATE: &str = "clientCertificate";

/// The whole document. The same for every server of this version.
pub fn document() -> Value {
    let operations = route::operations();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in &operations {
        let method = operation.method.as_str().to_ascii_lowercase();
        paths.entry(&operation.path).or_default().insert(method, described(operation));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Stolos",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Identity-based zero trust for fleets: documents, flows, explanations.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "jsonSchemaDialect": DIALECT,
        "servers": [{"url": "/"}],
        "tags": tags(&operations),
        "paths": paths,
        "components": {
            "schemas": components(),
            "securitySchemes": {
                CLIENT_CERTIFICATE: {
                    "type": "mutualTLS",
                    "description": "A client certificate of an operator, from the server's own authority.",
                },
            },
        },
        "security": [{CLIENT_CERTIFICATE: []}],
    })
}

/// The JSON schema of a kind's documents, for editors: complete in itself.
pub fn editor_schema(kind: &Kind) -> Value {
    let mut schema = (kind.schema)().to_value();
    fixed(&mut schema, kind);
    schema["$id"] = json!(format!("urn:stolos:schema:{API_VERSION}:{}", kind.name));
    schema["title"] = json!(kind.name);
    schema["description"] = json!(kind.about);
    schema
}

/// What only this kind's documents say.
fn fixed(schema: &mut Value, kind: &Kind) {
    let described = |schema: &Value, field: &str| schema["properties"][field]["description"].clone();
    for (field, word) in [("apiVersion", API_VERSION), ("kind", kind.name)] {
        schema["properties"][field] = json!({"const": word, "description": described(schema, field)});
    }
    if let Some(status) = schema.pointer_mut("/properties/status") {
        status["readOnly"] = json!(true);
    }
}

fn tags(operations: &[Operation]) -> Vec<Value> {
    let mut names: Vec<&str> = Vec::new();
    for operation in operations {
        if !names.contains(&operation.tag) {
            names.push(operation.tag);
        }
    }
    let about = |name: &str| KINDS.iter().find(|kind| kind.name == name).map(|kind| kind.about);
    let tag = |name: &&str| match about(name) {
        Some(about) => json!({"name": name, "description": about}),
        None => json!({"name": name}),
    };
    names.iter().map(tag).collect()
}

fn described(operation: &Operation) -> Value {
    let mut value = json!({
        "operationId": operation.id,
        "summary": operation.about,
        "tags": [operation.tag],
        "responses": responses(operation),
    });
    if !operation.parameters.is_empty() {
        value["parameters"] = operation.parameters.iter().map(parameter).collect();
    }
    if let Some(body) = body(operation.body) {
        value["requestBody"] = body;
    }
    if operation.access == Access::Anyone {
        value["security"] = json!([]);
    }
    value
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": match parameter.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        },
        "required": parameter.place == Place::Path,
        "description": parameter.about,
        "schema": parameter.schema,
    })
}

fn reference(component: &str) -> Value {
    json!({"$ref": format!("{COMPONENTS}{component}")})
}

fn body(body: Body) -> Option<Value> {
    let of = |media: &[&str], schema: Value, example: Option<Value>| {
        let mut held = json!({"schema": schema});
        if let Some(example) = example {
            held["example"] = example;
        }
        let content: Map<String, Value> = media.iter().map(|media| ((*media).to_owned(), held.clone())).collect();
        Some(json!({"required": !matches!(body, Body::JsonOrEmpty(_)), "content": content}))
    };
    let example = |name: &str| KINDS.iter().find(|kind| kind.name == name).and_then(example::document);
    match body {
        Body::Empty => None,
        Body::Document(kind) => of(route::DOCUMENT, reference(kind), example(kind)),
        Body::Patch => {
            let example = json!({"metadata": {"labels": {"team": "db"}, "annotations": {"note": null}}});
            of(&[route::MERGE_PATCH], json!({"type": "object"}), Some(example))
        }
        Body::Json(component) | Body::JsonOrEmpty(component) => of(&["application/json"], reference(component), None),
    }
}

fn content(content: Content) -> Value {
    let json = |schema: Value| ("application/json".to_owned(), json!({"schema": schema}));
    let lines = |line: &str| {
        let about = format!("One JSON value a line, each of the schema {line}.");
        (watch::MEDIA_TYPE.to_owned(), json!({"schema": {"type": "string", "description": about}}))
    };
    let parts: Vec<(String, Value)> = match content {
        Content::Json(component) => vec![json(reference(component))],
        Content::Mapping => vec![json(json!({"type": "object"}))],
        Content::Objects(kind) => vec![json(reference(&list_of(kind))), lines("WatchEvent")],
        Content::Lines(component, line) => vec![json(reference(component)), lines(line)],
        Content::Text(media) => vec![(media.to_owned(), json!({"schema": {"type": "string"}}))],
    };
    Value::Object(parts.into_iter().collect())
}

fn list_of(kind: &str) -> String {
    format!("{kind}List")
}

/// Good answers by status, and for each other status the codes that a problem document with it can have.
fn responses(operation: &Operation) -> Value {
    let mut all = Map::new();
    for (status, held) in &operation.answers {
        let about = match (status, operation.action) {
            (201, _) => "Created.",
            (_, route::Action::Create(_)) => "With `dryRun`: it would be created.",
            _ => "Done.",
        };
        let mut answer = json!({"description": about, "content": content(*held)});
        let headers = headers(operation, *status);
        if !headers.is_empty() {
            answer["headers"] = Value::Object(headers);
        }
        if let (201, route::Action::Create(kind) | route::Action::Replace(kind)) = (*status, operation.action) {
            answer["links"] = links(kind);
        }
        all.insert(status.to_string(), answer);
    }
    let mut by_status: BTreeMap<u16, Vec<ProblemKind>> = BTreeMap::new();
    for kind in operation.all_problems() {
        by_status.entry(kind.status).or_default().push(kind);
    }
    for (status, kinds) in by_status {
        let codes: Vec<&str> = kinds.iter().map(|kind| kind.code).collect();
        let about: Vec<String> = kinds.iter().map(|kind| format!("{}: {}", kind.code, kind.title)).collect();
        let of = reference("Problem");
        let schema = match only_these(status, operation) {
            true => json!({"allOf": [of, {"properties": {"code": {"enum": codes}}}]}),
            false => of,
        };
        let content = json!({problem::MEDIA_TYPE: {"schema": schema}});
        all.insert(status.to_string(), json!({"description": about.join("; "), "content": content}));
    }
    Value::Object(all)
}

/// Whether a status has no codes beside the listed ones. Documents may be refused for whatever their kind means: one with
/// one problem is answered by that one's code.
fn only_these(status: u16, operation: &Operation) -> bool {
    let of_documents = operation.problems.iter().any(|kind| kind.code == problem::INVALID.code);
    let of_deletion = matches!(operation.action, route::Action::Delete(_));
    !matches!((status, of_documents, of_deletion), (409 | 422, true, _) | (409, _, true))
}

fn headers(operation: &Operation, status: u16) -> Map<String, Value> {
    use route::Action::{Create, Patch, Read, Replace};
    let text = |about: &str| json!({"description": about, "schema": {"type": "string"}});
    let mut headers = Map::new();
    if matches!(operation.action, Create(_) | Patch(_) | Read(_) | Replace(_)) {
        headers.insert("ETag".to_owned(), text("The object's revision in quotes, for If-Match."));
    }
    if status == 201 && matches!(operation.action, Create(_) | Replace(_)) {
        headers.insert("Location".to_owned(), text("Where the object is."));
    }
    headers
}

/// What can be done with the object of an answer: everything that names one.
fn links(kind: &Kind) -> Value {
    let mut parameters = Map::new();
    parameters.insert("path.name".to_owned(), json!("$response.body#/metadata/name"));
    if kind.scope == Scope::Namespace {
        parameters.insert("query.namespace".to_owned(), json!("$response.body#/metadata/namespace"));
    }
    let link = |word: &str| {
        let id = format!("{word}{}", kind.name);
        (id.clone(), json!({"operationId": id, "parameters": parameters}))
    };
    Value::Object(["get", "patch", "delete"].into_iter().map(link).collect())
}

/// Every schema that the document refers to, by name.
fn components() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut renamed = Vec::new();
    for kind in KINDS {
        let schema = (kind.component)(&mut generator).to_value();
        let name = schema["$ref"].as_str().and_then(|text| text.strip_prefix(COMPONENTS)).unwrap_or_default();
        renamed.push((name.to_owned(), kind));
    }
    place::<Problem>(&mut generator);
    place::<WatchEvent>(&mut generator);
    place::<ApplyRequest>(&mut generator);
    place::<ApplyResponse>(&mut generator);
    place::<ExplainRequest>(&mut generator);
    place::<ExplainAnswer>(&mut generator);
    place::<FlowList>(&mut generator);
    place::<FlowRow>(&mut generator);
    place::<AuditList>(&mut generator);
    place::<JoinTokenRequest>(&mut generator);
    place::<JoinTokenResponse>(&mut generator);
    place::<NodeKeysRotated>(&mut generator);
    place::<FleetKeyRotated>(&mut generator);
    let mut schemas: Map<String, Value> = generator.take_definitions(true);
    for (generated, kind) in renamed {
        if let Some(mut schema) = schemas.remove(&generated) {
            fixed(&mut schema, kind);
            schema["title"] = json!(kind.name);
            schema["description"] = json!(kind.about);
            schemas.insert(kind.name.to_owned(), schema);
        }
        if kind.verbs.contains(&Verb::List) {
            schemas.insert(list_of(kind.name), list(kind));
        }
    }
    Value::Object(schemas)
}

fn place<T: JsonSchema>(generator: &mut SchemaGenerator) {
    generator.subschema_for::<T>();
}

fn list(kind: &Kind) -> Value {
    json!({
        "title": list_of(kind.name),
        "description": format!("A page of objects of kind {}, by namespace and name.", kind.name),
        "type": "object",
        "required": ["items", "revision"],
        "properties": {
            "items": {"type": "array", "items": reference(kind.name)},
            "revision": {"type": "integer", "minimum": 0,
                "description": "Watch from here. Of several pages it is the first one's."},
            "continue": {"type": "string", "description": "There is more: ask for it with this token."},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{found:?}");
        for reference in found {
            let pointer =
                reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out of the document"));
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn every_operation_is_described_with_every_status_it_can_have() {
        let document = document();
        let list = &document["paths"]["/apis/stolos.dev/v1/policies"]["get"];
        assert_eq!(list["operationId"], "listPolicies");
        for status in ["200", "400", "401", "403", "410", "422", "500"] {
            assert!(list["responses"][status].is_object(), "{status}: {list}");
        }
        assert_eq!(document["components"]["schemas"]["Policy"]["properties"]["kind"]["const"], "Policy");
        assert_eq!(document["paths"]["/healthz"]["get"]["security"], json!([]));
        let written: usize = document["paths"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, item)| item.as_object().map_or(0, Map::len))
            .sum();
        assert_eq!(written, route::operations().len());
    }

    #[test]
    fn an_editors_schema_is_complete_in_itself() {
        for kind in KINDS {
            let schema = editor_schema(kind);
            let mut found = Vec::new();
            references(&schema, &mut found);
            for reference in found {
                let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference}"));
                assert!(schema.pointer(pointer).is_some(), "{}: {reference}", kind.name);
            }
            assert_eq!(schema["$schema"], DIALECT);
        }
    }
}
