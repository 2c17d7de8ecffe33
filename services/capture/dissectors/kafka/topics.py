"""Names of topics, where requests of newer versions have only their ids (KIP-516)."""

from typing import Any

MOST_TOPICS = 4096  # names that a connection remembers
_LISTS = ("topics", "topicData", "responses")


class TopicNames:
    """What metadata on this connection has said; another may have asked for it."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def learn(self, payload: dict[str, Any]) -> None:
        """Take the names of a metadata response."""
        for topic in payload.get("topics") or ():
            identity, name = topic.get("topicId"), topic.get("name")
            if identity and name and len(self._names) < MOST_TOPICS:
                self._names[identity] = name

    def put(self, payload: dict[str, Any]) -> None:
        """Put a name beside each id that has none."""
        if not self._names:
            return
        for key in _LISTS:
            for topic in payload.get(key) or ():
                if isinstance(topic, dict) and topic.get("topicId") in self._names:
                    topic.setdefault("name", self._names[topic["topicId"]])
