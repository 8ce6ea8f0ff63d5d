"""Behaviors of durable states, right and wrong."""

from typing import TypeAlias

import ego


class Rename(ego.Command):
    name: str


class Retire(ego.Command):
    pass


class Profile(ego.State):
    name: str = ""


class Retired(ego.State):
    pass


ProfileCommand: TypeAlias = Rename | Retire


class Person(ego.DurableStateBehavior[ProfileCommand, Profile]):
    kind = "person"

    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(self, command: ProfileCommand, version: int, state: Profile) -> tuple[Profile, int] | None:
        match command:
            case Rename(name):
                reveal_type(version)  # is: int
                return Profile(name), version + 1
            case Retire():
                return None


class Waiting(ego.DurableStateBehavior[Rename, Profile]):
    def initial_state(self) -> Profile:
        return Profile()

    async def handle_command(self, cmd: Rename, number: int, before: Profile) -> tuple[Profile, int]:
        return Profile(cmd.name), number + 1


class WrongState(ego.DurableStateBehavior[Rename, Profile]):
    def initial_state(self) -> Retired:  # error
        return Retired()

    def handle_command(self, command: Rename, version: int, state: Profile) -> tuple[Retired, int]:  # error
        return Retired(), version + 1


class WithoutVersion(ego.DurableStateBehavior[Rename, Profile]):
    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(self, command: Rename, version: int, state: Profile) -> Profile:  # error
        return Profile(command.name)


class WrongArguments(ego.DurableStateBehavior[Rename, Profile]):
    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(self, command: Rename, state: Profile) -> None:  # error
        return None


class WrongCommand(ego.DurableStateBehavior[ProfileCommand, Profile]):
    def initial_state(self) -> Profile:
        return Profile()

    def handle_command(self, command: Rename, version: int, state: Profile) -> None:  # error
        return None


class Half(ego.DurableStateBehavior[Rename, Profile]):
    def initial_state(self) -> Profile:
        return Profile()


async def main() -> None:
    reveal_type(await Waiting("w-1").handle_command(Rename("Ann"), 0, Profile()))  # is: tuple[Profile, int]


Half("p-1")  # error
Person("p-1").handle_command(Rename("Ann"), 0)  # error
reveal_type(Person("p-1").id)  # is: str
reveal_type(Person("p-1").initial_state())  # is: Profile
reveal_type(Person("p-1").handle_command(Rename("Ann"), 0, Profile()))  # is: tuple[Profile, int] | None
reveal_type(ego.Kind(Person))  # is: Kind[Rename | Retire, Profile]
reveal_type(ego.Kind(Person, create=Person))  # is: Kind[Rename | Retire, Profile]
ego.Kind(Person, create=Waiting)  # error


async def stored(engine: ego.Engine) -> None:
    ref = await engine.durable_state_entity(Person("p-1"))
    reveal_type(ref)  # is: EntityRef[Rename | Retire, Profile]
    reveal_type(await ref.send(Rename("Ann"), expected_revision=0))  # is: tuple[Profile, int]
    reveal_type(await engine.get(Waiting, "w-1").send(Rename("Ann")))  # is: tuple[Profile, int]
    await engine.entity(Person("p-1"))  # error
    await ref.send(Profile("Ann"))  # error
    ego.Engine("people", ego.MemoryStore(), state_store="states.ego")  # error
