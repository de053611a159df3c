"""What a site permits, whatever a job asks for; a site that has not decided permits nothing."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ANY_METHOD = "*"
# The limit that refusals propose to a site that states none; every low-rank method stays below it.
PROPOSED_BYTES = 10_000_000
# For a workspace whose user runs all sites, such as the simulator's.
PERMIT_ALL: dict[str, Any] = {"methods": [ANY_METHOD], "max_upload_bytes": None}
# Names no path of the site, since a refusal may leave the site.
WHERE = "in the site's local/fedpeft_site.json"


class Permit(BaseModel):
    """The entry ``permit`` of a site file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    methods: list[str] | None = Field(
        default=None, description='methods that may run; ["*"] permits any, absent permits none'
    )
    max_upload_bytes: int | None = Field(
        default=None, ge=0, description="most bytes of an update; null permits any size, absent permits none"
    )

    @property
    def states_limit(self) -> bool:
        """Whether the file states an upload limit: null is a decision, an absent line is none."""
        return "max_upload_bytes" in self.model_fields_set

    def admit(self, method: str, upload_bytes: int) -> None:
        """Check a job against the permit. The message of a refusal may leave the site.

        Args:
            method: the job's method.
            upload_bytes: size of a round's update.

        Raises:
            ValueError: the method or the size is not permitted; the message says what would permit it.
        """
        if self.methods is None:
            raise ValueError(f"the site permits no method; if it should, write {permit_line(self, method)} {WHERE}")
        if not {method, ANY_METHOD} & set(self.methods):
            raise ValueError(
                f"the site does not permit method {method!r}; it permits: {', '.join(self.methods) or 'none'}; if it "
                f'should, add "{method}" to "methods" of "permit" {WHERE}'
            )
        if not self.states_limit:
            raise ValueError(
                f"the site does not say how much may be uploaded; write {permit_line(self, *self.methods)} {WHERE}, "
                "or null for any size"
            )
        if self.max_upload_bytes is not None and upload_bytes > self.max_upload_bytes:
            raise ValueError(
                f"an upload of {upload_bytes:,} bytes exceeds what the site permits, {self.max_upload_bytes:,}; if it "
                f'should be sent, raise "max_upload_bytes" of "permit" {WHERE}'
            )


def permit_line(permit: Permit, *methods: str) -> str:
    """The line of a site file that permits these methods, with the site's own limit if it states one."""
    limit = permit.max_upload_bytes if permit.states_limit else PROPOSED_BYTES
    return f'"permit": {json.dumps({"methods": methods, "max_upload_bytes": limit})}'
