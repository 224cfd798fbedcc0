//! Enrolment: join tokens, node numbers, and what is left when a node goes.

use std::collections::BTreeSet;
use std::time::Duration;

use api::kind::Spec;
use api::kind::cluster::ClusterSpec;
use api::kind::node::{NodeSpec, NodeStatus};
use api::object::{API_VERSION, Metadata, Object, ObjectKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::authority::{Authority, IssueError, Issued};
use identity::fingerprint::Fingerprint;
use identity::ids::NodeId;
use identity::node_key;
use identity::verify::public_key_of;
use jiff::Timestamp;
use policy::code::enrolment as code;
use policy::namespace::check_name;
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::{Deserialize, Serialize};
use store::Transaction;
use store::document::Precondition;
use tracing::info;
use uuid::Uuid;

use super::key::{decode, get, put};
use super::report::{SLOTS, WORKLOADS};
use super::{Registry, RegistryError, key, subscription};
use crate::class::Refused;
use crate::generations::Ring;
use crate::slots::{Pool, Standing};

const TOKENS: &str = "join-token";
const NODE_IDS: &str = "node-id";
/// The hash of each node's certified key: a certificate of an earlier node of the same number proves nothing.
const CERTIFIED: &str = "node-certified-key";
/// Tokens that a cluster may have open at once.
pub const OPEN_TOKENS_MAX: usize = 1000;
/// Spent and expired tokens are remembered so long, so that their use can be told from a mistyped one.
const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bytes of a token's secret.
const SECRET_LEN: usize = 32;

/// What is stored of a join token: everything but the secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Token {
    cluster: String,
    expires: Timestamp,
    node: Option<String>,
    spent: Option<Timestamp>,
}

/// What a node asks for.
#[derive(Debug)]
pub struct Request<'a> {
    /// The token's secret.
    pub secret: &'a str,
    /// The certificate request, DER.
    pub csr: &'a [u8],
    /// What the node calls itself.
    pub hostname: &'a str,
    /// Generation, public key and signature of its X25519 key.
    pub key: (u32, &'a [u8], &'a [u8]),
}

/// An enrolled node.
#[derive(Debug)]
pub struct Enrolled {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: String,
    /// Its certificate.
    pub issued: Issued,
}

/// Why a node was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The caller's fault; the code's page says what to do.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Ours.
    #[error("the enrolment could not be stored")]
    Registry(#[from] RegistryError),
}

impl From<store::StoreError> for EnrolError {
    fn from(error: store::StoreError) -> Self {
        Self::Registry(error.into())
    }
}

/// Why no join token was made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is no such cluster.
    #[error("there is no cluster `{0}`")]
    NoCluster(String),
    /// [`OPEN_TOKENS_MAX`] reached.
    #[error("cluster `{0}` has too many open join tokens")]
    TooMany(String),
    /// The name for the node is no name.
    #[error("`{0}` cannot be a node's name")]
    BadName(String),
    /// It could not be stored.
    #[error("the join token could not be stored")]
    Registry(#[from] RegistryError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

impl From<store::StoreError> for TokenError {
    fn from(error: store::StoreError) -> Self {
        Self::Registry(error.into())
    }
}

impl Registry {
    /// Makes a join token for a cluster: its secret, and when it expires. Only a hash of the secret is stored.
    pub async fn make_token(
        &self,
        cluster: &str,
        ttl: Duration,
        node: Option<&str>,
    ) -> Result<(String, Timestamp), TokenError> {
        if let Some(name) = node.filter(|name| check_name(name).is_err()) {
            return Err(TokenError::BadName(name.to_owned()));
        }
        let mut transaction = self.store.begin().await?;
        if transaction.get(&ObjectKey::new(ClusterSpec::KIND, "/", cluster)).await?.is_none() {
            return Err(TokenError::NoCluster(cluster.to_owned()));
        }
        let now = self.now();
        if forget_old_tokens(&mut transaction, cluster, now).await? >= OPEN_TOKENS_MAX {
            return Err(TokenError::TooMany(cluster.to_owned()));
        }
        let mut bytes = [0; SECRET_LEN];
        OsRng.try_fill_bytes(&mut bytes).map_err(|_| TokenError::Random)?;
        let secret = URL_SAFE_NO_PAD.encode(bytes);
        let token =
            Token { cluster: cluster.to_owned(), expires: now + ttl, node: node.map(str::to_owned), spent: None };
        let expires = token.expires;
        put(&mut transaction, TOKENS, &hash(&secret), &token).await?;
        transaction.commit().await?;
        self.status_due.notify_one();
        Ok((secret, expires))
    }

    /// Trades a join token for a node certificate. Number, key, document and the spent token are one transaction.
    pub async fn enrol(&self, authority: &Authority, request: &Request<'_>) -> Result<Enrolled, EnrolError> {
        let now = self.now();
        let hash = hash(request.secret);
        // Anybody can ask: whoever has no token does not get in the way of those who write.
        let stored = self.store.record(TOKENS, &hash).await?;
        usable(stored.map(|value| decode(TOKENS, &hash, &value)).transpose()?, now)?;
        let mut transaction = self.store.begin().await?;
        let mut token = usable(get(&mut transaction, TOKENS, &hash).await?, now)?;
        let cluster = ObjectKey::new(ClusterSpec::KIND, "/", &token.cluster);
        let cluster = transaction.get(&cluster).await?.filter(|_| !self.fleet().is_cluster_revoked(&token.cluster));
        let grant: Option<ClusterSpec> = cluster.and_then(|object| serde_json::from_value(object.spec).ok());
        let Some(grant) = grant else {
            let message = format!("cluster `{}` does not exist any more, or is revoked", token.cluster);
            return Err(Refused::new(&code::CLUSTER_GONE, message).into());
        };
        let uid = Uuid::now_v7();
        let id = self.bind_node(&mut transaction, &uid.to_string()).await?;
        let issued = authority.issue_node(request.csr, id, now).map_err(|e| refused_csr(&e))?;
        let (generation, public, signature) = request.key;
        let public = node_key::verify_issued(&issued.certificate, generation, public, signature)
            .map_err(|e| Refused::new(&code::NODE_KEY_BAD, e.to_string()))?;
        let wanted = token.node.as_deref().unwrap_or(request.hostname);
        let name = free_name(&mut transaction, wanted, &token.cluster).await?;
        let realm = grant.realm_of(&token.cluster).to_owned();
        let status = NodeStatus {
            id: id.get(),
            cluster: token.cluster.clone(),
            namespace: grant.namespace,
            region: grant.region.unwrap_or_default(),
            realm,
            last_seen: Some(now),
            certificate_not_after: Some(issued.not_after),
            key_generation: generation,
            ..NodeStatus::default()
        };
        let object = node_object(&name, uid, &status).map_err(|e| RegistryError::Record(name.clone(), e))?;
        transaction.put(&object, Precondition::Absent, now).await.map_err(RegistryError::from)?;
        let revision = transaction.revision().await?.0;
        // `verify_issued` has checked that the generation is at most 3.
        let ring = Ring::with_first(generation as u8, public, revision);
        key::put_node_ring(&mut transaction, id, &ring).await?;
        let point = public_key_of(&issued.certificate).map_err(|e| Refused::new(&code::CSR_BAD, e.to_string()))?;
        put(&mut transaction, CERTIFIED, &id.to_string(), &Fingerprint::of(&point).to_string()).await?;
        token.spent = Some(now);
        put(&mut transaction, TOKENS, &hash, &token).await?;
        let revision = transaction.commit().await?;
        self.touch();
        self.caught_up(revision).await;
        info!(node = %id, name, cluster = token.cluster, "node enrolled");
        Ok(Enrolled { id, name, cluster: token.cluster, issued })
    }

    /// Whether the key of a verified certificate is the one that this node enrolled with.
    pub async fn is_certified(&self, node: NodeId, public_key: &[u8]) -> Result<bool, RegistryError> {
        let stored = self.store.record(CERTIFIED, &node.to_string()).await?;
        let stored: Option<String> = stored.map(|v| decode(CERTIFIED, &node.to_string(), &v)).transpose()?;
        Ok(stored.is_some_and(|hash| hash == Fingerprint::of(public_key).to_string()))
    }

    /// A number for a new node: the next one, or one whose removal every subscribed node has acknowledged.
    async fn bind_node(&self, transaction: &mut Transaction, uid: &str) -> Result<NodeId, EnrolError> {
        let mut pool = node_pool(transaction).await?;
        pool.acknowledged(self.acknowledged());
        let exhausted = || Refused::new(&code::NODES_EXHAUSTED, "no node number is free");
        let number = pool.bind(uid.to_owned()).map_err(|_| exhausted())?.number();
        put(transaction, NODE_IDS, &number.to_string(), &Standing::Bound { owner: uid.to_owned() }).await?;
        NodeId::new(number).ok_or_else(|| exhausted().into())
    }

    /// Cleans up after Node documents that were deleted: their workloads, keys and numbers.
    pub(super) async fn forget_deleted_nodes(&self) -> Result<(), RegistryError> {
        let enrolled: BTreeSet<u32> = self.fleet().nodes().map(|(id, _)| id.get()).collect();
        let mut transaction = self.store.begin().await?;
        let mut gone = Vec::new();
        for (key, value) in transaction.records(NODE_IDS).await? {
            let (Ok(number), standing) = (key.parse::<u32>(), decode::<Standing<String>>(NODE_IDS, &key, &value)?)
            else {
                continue;
            };
            if let (Standing::Bound { owner }, false) = (standing, enrolled.contains(&number)) {
                gone.push((number, owner));
            }
        }
        // A node that enrolled a moment ago is in the store, though not yet in the fleet.
        let stored: BTreeSet<u32> = match gone.is_empty() {
            true => return Ok(()),
            false => stored_nodes(&mut transaction).await?,
        };
        gone.retain(|(number, _)| !stored.contains(number));
        let now = self.now();
        let first = now.as_microsecond().unsigned_abs();
        for (order, (number, owner)) in (first..).zip(&gone) {
            let Some(node) = NodeId::new(*number) else { continue };
            for (_, document) in transaction.records(&format!("{WORKLOADS}/{node}")).await? {
                let document: ObjectKey = decode(WORKLOADS, &node.to_string(), &document)?;
                transaction.delete(&document, Precondition::None).await?;
            }
            for space in [WORKLOADS, SLOTS] {
                let space = format!("{space}/{node}");
                for (key, _) in transaction.records(&space).await? {
                    transaction.delete_record(&space, &key).await?;
                }
            }
            transaction.delete_record(CERTIFIED, &node.to_string()).await?;
            key::forget(&mut transaction, node).await?;
            subscription::forget(&mut transaction, node).await?;
            let since = transaction.revision().await?.0;
            let standing = Standing::Released { owner: owner.clone(), since, order };
            put(&mut transaction, NODE_IDS, &number.to_string(), &standing).await?;
            self.subscriptions().remove(node);
            info!(%node, "node removed");
        }
        if !gone.is_empty() {
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Join tokens of each cluster that are neither spent nor expired.
    pub(super) async fn open_tokens(&self) -> Result<std::collections::BTreeMap<String, u32>, RegistryError> {
        let now = self.now();
        let mut open = std::collections::BTreeMap::new();
        for (key, value) in self.store.records(TOKENS).await? {
            let token: Token = decode(TOKENS, &key, &value)?;
            if token.spent.is_none() && token.expires > now {
                *open.entry(token.cluster).or_default() += 1;
            }
        }
        Ok(open)
    }
}

fn usable(token: Option<Token>, now: Timestamp) -> Result<Token, Refused> {
    match token {
        None => Err(Refused::new(&code::TOKEN_UNKNOWN, "the join token is not known to this server")),
        Some(t) if t.spent.is_some() => Err(Refused::new(&code::TOKEN_SPENT, "the join token was used already")),
        Some(t) if t.expires <= now => {
            Err(Refused::new(&code::TOKEN_EXPIRED, format!("the join token expired at {}", t.expires)))
        }
        Some(token) => Ok(token),
    }
}

/// Removes tokens that are long spent or expired; how many of the cluster are still open.
async fn forget_old_tokens(
    transaction: &mut Transaction,
    cluster: &str,
    now: Timestamp,
) -> Result<usize, RegistryError> {
    let mut open = 0;
    for (key, value) in transaction.records(TOKENS).await? {
        let token: Token = decode(TOKENS, &key, &value)?;
        let ended = token.spent.unwrap_or(token.expires);
        if ended + REMEMBERED < now {
            transaction.delete_record(TOKENS, &key).await?;
        } else if token.cluster == cluster && token.spent.is_none() && token.expires > now {
            open += 1;
        }
    }
    Ok(open)
}

async fn node_pool(transaction: &mut Transaction) -> Result<Pool<String>, RegistryError> {
    let mut standings = Vec::new();
    for (key, value) in transaction.records(NODE_IDS).await? {
        if let Ok(number) = key.parse() {
            standings.push((number, decode(NODE_IDS, &key, &value)?));
        }
    }
    Ok(Pool::restore(NodeId::MAX, standings))
}

async fn stored_nodes(transaction: &mut Transaction) -> Result<BTreeSet<u32>, RegistryError> {
    let filter = store::document::Filter { kind: Some(NodeSpec::KIND.to_owned()), ..Default::default() };
    let objects = transaction.list(&filter).await?;
    let ids = objects.into_iter().filter_map(|o| serde_json::from_value::<NodeStatus>(o.status?).ok());
    Ok(ids.map(|status| status.id).collect())
}

/// The wanted name, or one made from it that is free. Nodes and clusters share one word in `name@…`.
async fn free_name(transaction: &mut Transaction, wanted: &str, cluster: &str) -> Result<String, EnrolError> {
    let wanted = wanted.trim_end_matches('.').to_ascii_lowercase();
    check_name(&wanted).map_err(|e| Refused::new(&code::HOSTNAME_BAD, e.to_string()))?;
    let first = wanted.split('.').next().unwrap_or(&wanted).to_owned();
    let numbered = (2..10_000).map(|n| format!("{first}-{cluster}-{n}"));
    for name in [wanted.clone(), format!("{first}-{cluster}")].into_iter().chain(numbered) {
        let taken = transaction.get(&ObjectKey::new(NodeSpec::KIND, "/", &name)).await?.is_some()
            || transaction.get(&ObjectKey::new(ClusterSpec::KIND, "/", &name)).await?.is_some();
        if !taken && check_name(&name).is_ok() {
            return Ok(name);
        }
    }
    Err(Refused::new(&code::HOSTNAME_BAD, format!("every name like `{wanted}` is taken")).into())
}

fn node_object(name: &str, uid: Uuid, status: &NodeStatus) -> Result<Object, serde_json::Error> {
    let metadata = Metadata { namespace: "/".into(), name: name.into(), uid: Some(uid), ..Metadata::default() };
    Ok(Object {
        api_version: API_VERSION.into(),
        kind: NodeSpec::KIND.into(),
        metadata,
        spec: serde_json::json!({}),
        status: Some(serde_json::to_value(status)?),
    })
}

fn refused_csr(error: &IssueError) -> EnrolError {
    Refused::new(&code::CSR_BAD, error.to_string()).into()
}

fn hash(secret: &str) -> String {
    Fingerprint::of(secret.as_bytes()).to_string()
}
