//! `P2xxx`: what can be wrong with a manifest, a selector, a policy or a posture.

use super::codes;

codes! {
    SYNTAX = "P2001", "not YAML or JSON",
        "The file cannot be read as YAML or JSON.",
        "Mend the syntax at the place shown; indentation and quotes are the usual causes.";
    UNKNOWN_FIELD = "P2002", "unknown field",
        "The document has a field that its kind does not have. Nothing is ignored silently.",
        "Use the suggested field, or `stolos explain field KIND.spec` for the list.";
    UNKNOWN_KIND = "P2003", "unknown kind",
        "There is no kind of that name.",
        "Use the suggested kind; `stolos get` lists all kinds.";
    MISSING_FIELD = "P2004", "a required field is missing",
        "The document lacks a field that its kind needs.",
        "Add the field.";
    WRONG_TYPE = "P2005", "the wrong type of value",
        "The value is not of the type that the field has: text, number, list or mapping.",
        "Write a value of the type that the message names.";
    API_VERSION = "P2006", "unknown apiVersion",
        "The apiVersion is none that this version reads.",
        "Write `apiVersion: stolos.dev/v1`.";
    DUPLICATE_KEY = "P2007", "the same key twice",
        "A mapping has the same key twice, and only one of them could count.",
        "Take one of them out.";
    EMPTY = "P2008", "nothing in the file",
        "The file has no document.",
        "Write at least one document with apiVersion, kind and metadata.";
    TOO_LARGE = "P2009", "too large or too deep",
        "The file is larger, or nested deeper, than any manifest may be.",
        "Split it into several files.";
    BAD_NAME = "P2010", "not a valid name",
        "Names are DNS labels joined by dots: a-z, 0-9 and `-` inside, at most 253 characters.",
        "Choose a name of that shape.";
    BAD_NAMESPACE = "P2011", "not a valid namespace path",
        "A namespace path is `/` or `/a/b`: at most 16 DNS labels, no slash at the end.",
        "Write the path from the root, as in `/acme/prod`.";
    BAD_CHOICE = "P2012", "not one of the choices",
        "The field takes one of a few words, and this is none of them.",
        "Use one of the words that the message lists.";
    UNSUPPORTED_YAML = "P2013", "a YAML feature that manifests do not have",
        "Anchors, aliases, merge keys and tags are refused: what is stored is exactly what is read.",
        "Write the values out.";

    SELECTOR_SYNTAX = "P2101", "a selector that cannot be read",
        "A selector is a list of requirements joined by commas: `key=value`, `key!=value`, `key in (a,b)`, `key notin (a,b)`, `key`, `!key`; or the word `any`.",
        "Mend it at the place shown; values with `, = * ( )`, quotes or spaces go in quotes.";
    SELECTOR_EMPTY_LIST = "P2102", "an empty list of values",
        "`in ()` matches nothing, and `notin ()` everything.",
        "Name the values, or take the requirement out.";
    SELECTOR_CONTRADICTION = "P2103", "requirements that exclude each other",
        "No workload can meet all requirements of this selector, so the policy would never apply.",
        "A comma means *and*; for *or* use `in (a,b)` or a second selector in the list.";
    SELECTOR_EXTERNAL_MIXED = "P2104", "@external beside other requirements",
        "An external end has no attributes, only the ExternalNetworks that cover its address, so the selector could never match.",
        "Give `@external=NAME` a selector of its own in the list.";
    SELECTOR_EXTERNAL_SCOPE = "P2105", "an ExternalNetwork out of reach",
        "A policy reaches only ExternalNetworks of its own namespace and of the namespaces above it.",
        "Declare the network in the policy's namespace or above it.";
    SELECTOR_NAMESPACE = "P2106", "a namespace that cannot exist",
        "The value of `@namespace` is no namespace path, so no workload can have it.",
        "Write `/a/b` for exactly that namespace, `/a/b/**` for it and everything below.";
    SELECTOR_SYSTEM_KEY = "P2107", "unknown system attribute",
        "Keys that begin with `@` are set by the system, and this is none of them, so the selector could never match.",
        "Use the suggested key, or a plain key for a label of yours.";
    SELECTOR_ANY = "P2109", "`any` beside other requirements",
        "`any` is a selector of its own: every identity in the scope of the policy.",
        "Leave `any` out; the other requirements say enough.";
    SELECTOR_EXTERNAL_NEGATED = "P2110", "@external negated",
        "Negations never match an external end, so that nothing outside is let in by what it is not.",
        "Name the networks: `@external=NAME`, `@external in (a,b)`, or `@external` for all that are declared in reach.";
    SELECTOR_TOO_LARGE = "P2111", "a selector that is too large",
        "A selector has at most 64 requirements of 256 values each, and 16 KiB of text.",
        "Give the workloads a label of their own and select that.";

    NO_ENDS = "P2201", "no selector in from or to",
        "A policy says who may reach whom; an empty list would match nobody, or everybody, depending on who reads it.",
        "Write at least one selector; `any` means every identity in the policy's namespace.";
    BAD_PORT = "P2202", "not a port",
        "Ports are written `tcp/80`, `tcp/8000-8100`, `udp/53`, `tcp`, `udp`, `icmp` or `any`.",
        "Use one of these forms.";
    ENCRYPTION_UNAVAILABLE = "P2204", "encryption is not enforced yet",
        "No enforcer of this version encrypts. What cannot be enforced is refused, never stored and ignored.",
        "Leave the field out (or `encryption: off` in a Namespace).";
    HTTP_UNAVAILABLE = "P2205", "HTTP rules are not enforced yet",
        "No enforcer of this version reads HTTP. What cannot be enforced is refused, never stored and ignored.",
        "Leave `http` out and allow the port.";
    SCHEDULE_UNAVAILABLE = "P2206", "schedules are not enforced yet",
        "No enforcer of this version follows a schedule. What cannot be enforced is refused, never stored and ignored.",
        "Leave `schedule` out.";
    EXPIRES_UNAVAILABLE = "P2207", "expiry is not enforced yet",
        "No enforcer of this version ends a policy at a time. What cannot be enforced is refused, never stored and ignored.",
        "Leave `expires` out and delete the policy when it is no longer wanted.";
    SPEAKS_FOR_NOBODY = "P2208", "a policy that speaks for nobody",
        "A policy speaks for ends in its own namespace and below. Neither `from` nor `to` can be there, so it would never apply.",
        "Put the policy into the namespace of one of its ends.";
    DENY_WITHOUT_SCOPE = "P2209", "a deny that reaches only its own namespace",
        "A selector without `@namespace` matches only workloads below the policy's own namespace; a deny written so does not stop anybody else.",
        "If everybody is meant, say it: add `@namespace=/**` to the selector. `any` then becomes `@namespace=/**`.";
    TOO_MANY = "P2210", "too many entries",
        "A policy has at most 256 selectors in each of from and to, and 256 ports.",
        "Split the policy, or give the workloads a label of their own.";

    POSTURE_LOOSENS = "P2301", "looser than the namespace above",
        "A namespace may tighten what holds above it, never loosen it: the tighter setting stays in force.",
        "Take the setting out, or change the namespace that the message names.";
    OBSERVE_UNTIL = "P2302", "observeUntil without enforcement",
        "`observeUntil` lets namespaces below an enforcing one observe for a while; this namespace does not enforce.",
        "Set `mode: enforce` beside it, or take it out.";
    BAD_TIME = "P2303", "not a point in time",
        "Times are written as in RFC 3339: `2030-01-31T00:00:00Z`.",
        "Write the time in that form.";
    ON_AGENT_LOSS_UNAVAILABLE = "P2304", "onAgentLoss: open is not honoured yet",
        "The datapath of this version always keeps the last policy in force when its agent is gone.",
        "Leave the field out, or write `onAgentLoss: hold`.";
}
