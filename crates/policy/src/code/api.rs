//! `A3xxx`: what the server's API can answer instead of doing what was asked.

use super::codes;

codes! {
    BAD_REQUEST = "A3001", "the request cannot be read",
        "The body is not JSON of the shape that the address takes, or a query parameter is unknown or malformed.",
        "Use the `stolos` command line, or compare with the message.";
    BODY_TOO_LARGE = "A3002", "the request is too large",
        "The body is larger than the server reads. Nothing was written.",
        "Split the files into several applies.";
    NO_SUCH_ROUTE = "A3003", "no such address",
        "The server has nothing under this path.",
        "Objects live under `/apis/stolos.dev/v1/PLURAL[/NAME]?namespace=/path`; check the version of the client.";
    UNSUPPORTED_VERB = "A3004", "the kind does not offer this",
        "Nodes and Workloads are reported by agents: they can be read, not written.",
        "Change a workload's labels with `stolos label`; take one out with `stolos revoke`.";
    UNAUTHENTICATED = "A3005", "a client certificate is needed",
        "The request came without a certificate of this trust domain.",
        "Use the admin.yaml that `stolos server init` wrote (`--config`, or STOLOS_CONFIG).";
    FORBIDDEN = "A3006", "this certificate may not do that",
        "The certificate is valid, but its holder has no right to this: a node's certificate serves its agent only.",
        "Use an operator's certificate.";
    NOT_FOUND = "A3007", "there is no such object",
        "No object of that kind has this name in this namespace.",
        "List the kind with `stolos get KIND`; mind the namespace.";
    ALREADY_EXISTS = "A3008", "the object exists already",
        "A create was asked for, and there is one of that name.",
        "Use apply, or another name.";
    CONFLICT = "A3009", "somebody changed the object meanwhile",
        "The document carries a uid or revision that is not the object's present one. Nothing was written.",
        "Read it again, make the change again, and write.";
    INVALID = "A3010", "the documents have problems",
        "At least one document cannot be taken; every problem is listed. Nothing was written, not even the good ones.",
        "Mend the places shown and apply again.";
    NOT_HONOURED = "A3011", "a field that nothing enforces yet",
        "The field is planned, but no enforcer of this version honours it. It is refused rather than stored and ignored.",
        "Take the field out.";
    NAMESPACE_MISSING = "A3012", "the namespace does not exist",
        "An object can only live in a namespace that has a Namespace object.",
        "Create the Namespace first, or in the same apply.";
    NAMESPACE_IN_USE = "A3013", "the namespace is not empty",
        "Something lives in it or below it: objects, a Cluster's workloads, or other namespaces.",
        "Delete those first.";
    LOOSENS = "A3014", "a child may not loosen its parent's posture",
        "A namespace may be tighter than those above it, never looser.",
        "Take the setting out, or set `observeUntil` on the parent so that those below may observe first.";
    TOKEN_LIMIT = "A3015", "too many open join tokens",
        "A cluster may have a limited number of tokens that are neither spent nor expired.",
        "Use those, or wait until they expire.";
    AMBIGUOUS = "A3016", "the name fits more than one workload",
        "Several workloads are called so; the message lists them.",
        "Write `name@cluster`, `name@node`, `/namespace/name` or the uid.";
    CLUSTER_IN_USE = "A3017", "the cluster still has nodes",
        "Deleting it would leave nodes without a place.",
        "Revoke or remove its nodes first.";
    REALM_CONFLICT = "A3018", "the address is claimed by another Service",
        "Two Services cannot own the same address and port in one realm: the earlier one keeps it.",
        "Use another address or port, or name different `realms`.";
    START_OVER = "A3019", "the change feed no longer reaches back that far",
        "The revision to resume from is older than the changes that the server keeps.",
        "List again, and watch from the list's revision.";
    INTERNAL = "A3020", "the server failed",
        "Something went wrong that is not the request's fault. Nothing was acknowledged.",
        "Try again; the server's log has the cause.";
    UNAVAILABLE = "A3021", "the server is starting or stopping",
        "The server does not take requests at the moment: it is starting or stopping, or does not reach its database. Nothing was written.",
        "Try again in a few seconds; if it lasts, look at the database.";
    REFUSED_BY_OTHER_SIDE = "A3022", "the other side's policies are not yours to read",
        "The other tenant's side decided, and you have no right to read its policies.",
        "Ask them, with the request id.";
    COVERS_FLEET = "A3023", "an external network covers addresses of the fleet",
        "A prefix of the ExternalNetwork contains addresses of the fleet. Those keep their identity and never match the network.",
        "Nothing has to be done; narrow the prefix if workloads were meant, and use a selector for them.";
    RANGE = "A3024", "a value is out of its range",
        "A list is too long or empty, or a number or text is outside of what the field takes.",
        "Keep to the limits that the message names.";
    ROOT_FIXED = "A3025", "the root namespace cannot be deleted",
        "Every namespace lies below `/`.",
        "Change its posture instead.";
    ROTATION_BUSY = "A3026", "a key rotation is still under way",
        "A key generation may be replaced only after every node has acknowledged the last change.",
        "Wait until `stolos status` shows every node up to date, or delete the Nodes that are gone for good.";
    CONTINUE_UNKNOWN = "A3027", "the continue token is none of this list",
        "The token in `continue` was cut off or changed, or is of a list with another kind, namespace or label selector.",
        "Send it as it came, with the same other parameters (`limit` may differ), or list from the beginning.";
    CONTINUE_EXPIRED = "A3028", "the continue token has expired",
        "So much has changed since the list's first page that a watch could no longer tell what; going on would miss changes.",
        "List from the beginning.";
    PRECONDITION_FAILED = "A3029", "the object is not at the revision of If-Match",
        "The header If-Match names a revision, and the object is at another one, or is gone. Nothing was written.",
        "Read it again, make the change again, and send the new ETag.";
    UNSUPPORTED_MEDIA = "A3030", "the body is of a media type that is not taken here",
        "The header Content-Type names a media type that this address does not take. Nothing was written.",
        "Documents are application/json or application/yaml, patches application/merge-patch+json, questions application/json.";
    TOO_DEEP = "A3031", "the body is nested too deeply",
        "Lists and mappings stand inside of each other deeper than the server reads. Nothing was written.",
        "Flatten it; no document of any kind needs such depth.";
    BAD_LABEL_SELECTOR = "A3032", "the label selector cannot be read",
        "`labelSelector` takes requirements on the objects' own labels, joined by commas, with plain values.",
        "Write it as in `team=web,tier in (a,b),!legacy`.";
    OUTCOME_UNKNOWN = "A3050", "it is not known whether the write took place",
        "The server lost its connection to the database between asking for the commit and its answer. All of the request was written, or nothing of it.",
        "Read what you wrote: it is there, or write it again. An apply may be repeated as it is.";
    STANDBY = "A3051", "this server stands by",
        "Of the servers on one database a single one serves at a time. This one waits for its turn. Nothing was written.",
        "Ask the server that the message names, or a load balancer that heeds `/readyz`; try again in a few seconds if none is named.";
}
