"""What one person may ask of this server in a minute: one count for the page, its endpoints, the tools and /v1."""

from vlm.serving.callers import current_caller
from vlm.serving.environment import ServerSettings
from vlm.serving.limits import Limit


class Allowance:
    """Holds where the page is public. On the owner's own machine nothing is too much."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._asked = Limit("questions", settings.questions_a_minute)
        self._pictures = Limit("pictures", settings.pictures_a_minute)
        self._ahead = Limit("pictures before their question", settings.pictures_a_minute)
        self._searched = Limit("pictures for searches", settings.search_pictures_a_minute)
        self._votes = Limit("votes", settings.questions_a_minute)  # as many as answers
        self._spoken = Limit("seconds of speech", settings.speech_seconds_a_minute)

    def take(self, pictures: int = 0, spoken: bool = False) -> None:
        """One question, search or look. Raises TryLater where whoever is answered now has asked for too much."""
        if not self.settings.public:
            return
        person = current_caller().person
        self._asked.take(person)
        if pictures:
            self._pictures.take(person, pictures)
        if spoken:
            self._spoken.check(person)

    def take_ahead(self, pictures: int) -> None:
        """Pictures that are read before their question comes, which counts them by itself."""
        if self.settings.public:
            self._ahead.take(current_caller().person, pictures)

    def take_searched(self, pictures: int) -> None:
        """Pictures that become part of an index, each a small share of the work of a question."""
        if self.settings.public and pictures:
            self._searched.take(current_caller().person, pictures)

    def check_searched(self) -> None:
        """Before a zip of such pictures is unpacked, which tells how many there are."""
        if self.settings.public:
            self._searched.check(current_caller().person)

    def take_vote(self) -> None:
        if self.settings.public:
            self._votes.take(current_caller().person)

    def charge_speech(self, person: str, seconds: float) -> None:
        """Charge for a recording once it was heard: its length is known only then."""
        if self.settings.public:
            self._spoken.charge(person, seconds)
