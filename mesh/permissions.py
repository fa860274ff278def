"""Who may call what inside the mesh: one line for each group of methods. What is not here, nobody may call.

A role is a service's name, or `operator` for people with the mesh's own tools. It is what a certificate says (`mesh.certificates`);
in a mesh without certificates nobody is asked for a role. Pure.
"""

from collections.abc import Iterator

OPERATOR = "operator"
SERVICES = ("balancer", "edge", "router", "store", "tagsvc", "scheduler")
ROLES = (*SERVICES, OPERATOR)

_ANYONE = " ".join(ROLES)
_NOBODY = ""  # businesses call these at the business port, which has a door of its own: mesh.business

_TABLE = (
    # service, methods, roles that may call them
    ("grpc.health.v1.Health", "Check List Watch", _ANYONE),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", OPERATOR),
    ("tidings.balancer.v1.BalancerService", "ReportLoad", "edge"),
    ("tidings.balancer.v1.BalancerService", "ListEdges DrainEdge Rebalance ListSessions", OPERATOR),
    ("tidings.router.v1.LinkService", "Link", "edge"),
    ("tidings.router.v1.ConversationService", "CreateConversation GetConversation ListConversations UpdateConversation", "edge"),
    ("tidings.router.v1.ConversationService", "PutMember RemoveMember ListMessages SendMessage", "edge"),
    ("tidings.router.v1.NotificationService", "StartNotifications RefreshNotifications", "scheduler"),
    ("tidings.store.v1.MessageLogService", "Append ListEntries SyncDevices AdvanceMarks", "router"),
    ("tidings.store.v1.MessageLogService", "ListUndispatched MarkDispatched", "router"),
    ("tidings.store.v1.ConversationService", "EnsureDirect CreateGroup GetConversations ListConversations", "router"),
    ("tidings.store.v1.ConversationService", "UpdateConversation PutMember RemoveMember", "router"),
    ("tidings.store.v1.UserService", "EnsureUsers GetUsers", "router tagsvc scheduler"),
    ("tidings.store.v1.UserService", "ListUsers", "tagsvc scheduler"),
    ("tidings.store.v1.UserService", "RecordLastSeen", "router"),
    ("tidings.store.v1.TagLogService", "AppendRecords FollowRecords SaveCheckpoint LoadCheckpoint", "tagsvc"),
    ("tidings.store.v1.NotificationStoreService", "CreateNotification FindRequest RefuseRequest ListNotifications", "scheduler"),
    ("tidings.store.v1.NotificationStoreService", "ControlNotification ClaimNotifications", "scheduler"),
    ("tidings.store.v1.NotificationStoreService", "GetNotifications SaveProgress ReleaseNotifications", "scheduler router"),
    ("tidings.store.v1.NotificationStoreService", "SaveExpansion RecordDelivered", "router"),
    ("tidings.store.v1.NotificationStoreService", "ReadRecipients", "scheduler router tagsvc"),
    ("tidings.store.v1.NotificationStoreService", "ListReferences", "tagsvc"),
    ("tidings.store.v1.DeadLetterService", "PutDeadLetters", "router"),
    ("tidings.store.v1.DeadLetterService", "ListDeadLetters DiscardDeadLetter", f"router {OPERATOR}"),
    ("tidings.store.v1.DeadLetterService", "GetDeadLetter ReplayDeadLetter", OPERATOR),
    ("tidings.tag.v1.AudienceService", "ValidateExpression CountExpression", "scheduler"),
    ("tidings.tag.v1.AudienceService", "ExpandExpression", "scheduler router"),
    ("tidings.tag.v1.AudienceService", "WatchSnapshots", "router"),
    ("tidings.tag.v1.AudienceService", "ListAudience ExplainUser", _NOBODY),
    ("tidings.tag.v1.TagService", "CreateTag UpdateTag DeleteTag GetTag ListTags PutAlias DeleteAlias ListAliases", _NOBODY),
    ("tidings.tag.v1.TagService", "PutCombination DeleteCombination ListCombinations", _NOBODY),
    ("tidings.tag.v1.TagService", "ApplyMapping ReplaceMembers ListMembers ListUserTags", _NOBODY),
    ("tidings.scheduler.v1.NotificationService", "UploadNotification CancelNotification PrioritizeNotification", _NOBODY),
    ("tidings.scheduler.v1.NotificationService", "RescheduleNotification PauseNotification ResumeNotification", _NOBODY),
    ("tidings.scheduler.v1.NotificationService", "GetNotification ListNotifications WatchNotification", _NOBODY),
    ("tidings.scheduler.v1.NotificationService", "EstimateAudience ListRecipients", _NOBODY),
)


class Permissions:
    """The table, ready to be asked."""

    def __init__(self) -> None:
        self._roles = {
            f"/{service}/{method}": frozenset(roles.split()) for service, methods, roles in _TABLE for method in methods.split()
        }

    def __iter__(self) -> Iterator[str]:
        """Every method that has a line, as gRPC writes it: /package.Service/Method."""
        return iter(self._roles)

    def roles(self, method: str) -> frozenset[str]:
        """Who may call a method; nobody when it has no line."""
        return self._roles.get(method, frozenset())
