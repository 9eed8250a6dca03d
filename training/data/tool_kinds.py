"""Tool kinds: what the declared tools can be, under several names, with requests that need them.

A kind is a set of names for the tool and its parameters, so that a call can only be right when it copies what was
declared. Kinds of HELD_OUT_KINDS, and the held-out requests of the others, are never seen in training.
"""

from collections.abc import Callable
from dataclasses import dataclass

from training.data.dice import Dice
from training.data.prose import DAYS, JOBS, MONTHS, NAMES, PLAIN_WORDS, THINGS, TOWNS
from training.data.vocabulary import COLOURS

Draw = Callable[[Dice], str | int]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a tool: a key for the requests, its possible names, its JSON type, how a value is drawn.

    `values` are all there are, where they are few.
    """

    key: str
    names: tuple[str, ...]
    draw: Draw
    type: str = "string"
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of tool. Requests hold `{key}` for each parameter; `result` is what the tool returns."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    requests: tuple[str, ...]
    held_out_requests: tuple[str, ...]
    result: Draw


def _of(items: tuple[str, ...]) -> Draw:
    return lambda dice: dice.pick(items)


def _number(low: int, high: int) -> Draw:
    return lambda dice: dice.integer(low, high)


def _text(dice: Dice) -> str:
    return " ".join(dice.pick(PLAIN_WORDS) for _ in range(dice.integer(1, 4)))


ROOMS = ("kitchen", "bedroom", "garden", "office", "hall", "cellar", "bathroom", "garage")
LANGUAGES = ("French", "German", "Spanish", "Italian", "Chinese", "Greek", "Polish")
DISHES = ("pizza", "soup", "salad", "rice", "noodles", "bread", "cake", "fish")
SKIES = ("sunny", "rain", "snow", "clouds", "wind", "fog")
DONE = ("done", "ok", "success", "finished")


def _weather(dice: Dice) -> str:
    return f"{dice.integer(-9, 35)} degrees, {dice.pick(SKIES)}"


def _clock(dice: Dice) -> str:
    return f"{dice.integer(0, 23):02d}:{dice.integer(0, 59):02d}"


def _amount(dice: Dice) -> str:
    return str(dice.integer(2, 999))


_CITY = Parameter("city", ("city", "location", "town", "place"), _of(TOWNS))
_WHO = Parameter("who", ("name", "person", "to", "recipient"), _of(NAMES))

KINDS: dict[str, Kind] = {
    "weather": Kind(
        ("get_weather", "weather", "fetch_weather", "current_weather", "weather_report"),
        ("Get the weather of a city.", "Current weather.", "Look up the weather somewhere."), (_CITY,),
        (
            "What is the weather in {city}?", "How is the weather in {city}?", "Weather in {city} please.",
            "Is it raining in {city}?", "Tell me the weather for {city}.", "How warm is it in {city}?",
            "What's the weather like in {city} today?", "Check the weather in {city}.",
            "Do I need an umbrella in {city}?",
        ),
        ("Look up the weather in {city}.", "Will it be warm in {city}?"), _weather,
    ),
    "clock": Kind(
        ("get_time", "current_time", "clock", "local_time", "world_clock"),
        ("Get the time in a city.", "Current local time.", "Tell the time."), (_CITY,),
        (
            "What time is it in {city}?", "Tell me the time in {city}.", "Current time in {city}?",
            "How late is it in {city}?", "What is the local time in {city}?", "Time in {city} please.",
            "Which hour is it in {city}?", "What does the clock say in {city}?",
        ),
        ("Look up the time in {city}.", "Give me the hour in {city}."), _clock,
    ),
    "timer": Kind(
        ("set_timer", "start_timer", "timer", "countdown"), ("Start a timer.", "Set a countdown in minutes.", "Timer."),
        (Parameter("minutes", ("minutes", "duration", "length"), _number(1, 90), "integer"),),
        (
            "Set a timer for {minutes} minutes.", "Start a timer of {minutes} minutes.", "Timer {minutes} minutes.",
            "Count down {minutes} minutes.", "Remind me in {minutes} minutes.", "Please set a {minutes} minute timer.",
            "I need a timer for {minutes} minutes.", "Wake me in {minutes} minutes.",
        ),
        ("Let me know when {minutes} minutes are over.", "Run a timer for {minutes} minutes."), _of(DONE),
    ),
    "light": Kind(
        ("set_light", "switch_light", "light", "control_light", "lamp_switch"),
        ("Turn the light of a room on or off.", "Switch a light.", "Control the lights."),
        (
            Parameter("room", ("room", "where", "area"), _of(ROOMS)),
            Parameter("state", ("state", "value", "power"), _of(("on", "off")), "string", ("on", "off")),
        ),
        (
            "Turn {state} the light in the {room}.", "Turn the light in the {room} {state}.",
            "Switch {state} the {room} light.", "Light {state} in the {room} please.",
            "Please switch the light in the {room} {state}.", "I want the {room} light {state}.",
            "Can you turn {state} the {room} light?", "Set the light in the {room} to {state}.",
        ),
        ("Make the {room} light go {state}.", "The light in the {room} should be {state}."), _of(DONE),
    ),
    "message": Kind(
        ("send_message", "text_message", "write_to", "send_text", "message"),
        ("Send a message to somebody.", "Send a text.", "Write a message."),
        (_WHO, Parameter("text", ("text", "message", "body", "content"), _text)),
        (
            "Send {who} the message: {text}", "Write to {who}: {text}", "Tell {who}: {text}",
            "Send a message to {who}: {text}", "Message {who}: {text}", "Text {who} this: {text}",
            "Please send {who} this text: {text}", "Let {who} know: {text}",
        ),
        ("Drop {who} a line: {text}", "Pass this on to {who}: {text}"), _of(("sent", "done", "delivered")),
    ),
    "call": Kind(
        ("call", "phone_call", "make_call", "dial"), ("Call somebody.", "Make a phone call.", "Phone a person."),
        (_WHO,),
        (
            "Call {who}.", "Phone {who}.", "Please call {who}.", "Ring {who}.", "Make a call to {who}.",
            "I want to talk to {who} on the phone.", "Can you call {who}?", "Dial the number of {who}.",
        ),
        ("Get {who} on the phone.", "Start a phone call with {who}."), _of(("calling", "connected", "done")),
    ),
    "add": Kind(
        ("add", "sum", "add_numbers", "plus", "calculator_add"),
        ("Add two numbers.", "The sum of two numbers.", "Addition."),
        (
            Parameter("a", ("a", "x", "first", "left"), _number(0, 999), "integer"),
            Parameter("b", ("b", "y", "second", "right"), _number(0, 999), "integer"),
        ),
        (
            "Add {a} and {b}.", "What is {a} plus {b}?", "Calculate {a} + {b}.", "Use the tool to add {a} and {b}.",
            "Sum of {a} and {b}?",
            "How much is {a} + {b}?", "Please add up {a} and {b}.",
            "Work out {a} plus {b}.",
        ),
        ("Put {a} and {b} together.", "Find the sum of {a} and {b}."), _amount,
    ),
    "music": Kind(
        ("play_music", "play", "music_player", "play_song", "start_music"),
        ("Play music.", "Play a song.", "Start some music."),
        (Parameter("song", ("song", "title", "track", "name"), _text),),
        (
            "Play {song}.", "Play the song {song}.", "Please play {song}.", "I want to hear {song}.", "Put on {song}.",
            "Start the song {song}.", "Can you play {song}?", "Let me hear {song}.",
        ),
        ("Listen to {song}.", "Make the player play {song}."), _of(("playing", "started", "done")),
    ),
    "search": Kind(
        ("search", "web_search", "find", "lookup", "search_web"),
        ("Search the web.", "Find pages about something.", "Look something up."),
        (Parameter("query", ("query", "q", "text", "words"), _text),),
        (
            "Search for {query}.", "Search the web for {query}.", "Look up {query}.", "Find pages about {query}.",
            "Google {query}.", "Please search {query}.", "Can you look up {query}?",
            "I need information about {query}.",
        ),
        ("Find something on {query}.", "See what the web says about {query}."),
        lambda dice: f"{dice.integer(2, 99)} pages found",
    ),
    "translate": Kind(
        ("translate", "translate_text", "translator", "to_language"),
        ("Translate a text.", "Translate words into a language.", "Translator."),
        (
            Parameter("text", ("text", "words", "source"), _text),
            Parameter("language", ("language", "target", "to"), _of(LANGUAGES)),
        ),
        (
            "Translate {text} into {language}.", "What is {text} in {language}?", "Say {text} in {language}.",
            "Translate to {language}: {text}", "How do you say {text} in {language}?",
            "Please translate {text} to {language}.", "In {language}: {text}", "Give me {text} in {language}.",
        ),
        ("Put {text} into {language}.", "I need {text} in {language}."), _text,
    ),
    "price": Kind(
        ("get_price", "price", "price_of", "check_price"),
        ("Get the price of a thing.", "Look up a price.", "How much something costs."),
        (Parameter("item", ("item", "product", "thing", "article"), _of(THINGS)),),
        (
            "What is the price of the {item}?", "How much is the {item}?", "How much does the {item} cost?",
            "Price of the {item}?", "Tell me the price of a {item}.", "What does the {item} cost?",
            "Check the price of the {item}.", "Look up the price of the {item}.",
        ),
        ("What must I pay for the {item}?", "Find out what the {item} costs."), _amount,
    ),
    "note": Kind(
        ("create_note", "add_note", "save_note", "write_note"),
        ("Save a note.", "Write something down.", "Add a note."),
        (Parameter("text", ("text", "note", "content"), _text),),
        (
            "Write a note: {text}", "Note: {text}", "Save this note: {text}", "Add a note that says {text}",
            "Make a note: {text}", "Write down {text}", "Please note {text}", "Remember this note: {text}",
        ),
        ("Keep a note: {text}", "Put this in my notes: {text}"), _of(("saved", "done", "ok")),
    ),
    "calendar": Kind(
        ("add_event", "calendar", "create_event", "plan_event"),
        ("Put an event into the calendar.", "Plan an event.", "Calendar entry."),
        (
            Parameter("event", ("title", "event", "name"), _of(PLAIN_WORDS)),
            Parameter("day", ("day", "date", "when"), _of(DAYS)),
        ),
        (
            "Add {event} on {day} to my calendar.", "Put {event} into the calendar for {day}.",
            "Plan {event} for {day}.", "Event {event} on {day}.", "I have {event} on {day}. Put it into the calendar.",
            "Please add the event {event} on {day}.", "On {day} there is {event}. Add it.",
            "Make a calendar entry {event} for {day}.",
        ),
        ("Write {event} into my calendar on {day}.", "Set the event {event} for {day}."), _of(DONE),
    ),
    "paint": Kind(
        ("set_color", "paint", "change_colour", "color_picker"),
        ("Change the colour of a thing.", "Paint something.", "Set a colour."),
        (
            Parameter("item", ("item", "object", "target"), _of(THINGS)),
            Parameter("colour", ("color", "colour", "paint"), _of(COLOURS)),
        ),
        (
            "Paint the {item} {colour}.", "Make the {item} {colour}.", "Change the colour of the {item} to {colour}.",
            "Set the {item} to {colour}.", "The {item} should be {colour}.", "Color the {item} {colour}.",
            "Please paint the {item} {colour}.", "I want a {colour} {item}.",
        ),
        ("Give the {item} the colour {colour}.", "Turn the {item} {colour}."), _of(DONE),
    ),
    "sunrise": Kind(
        ("sunrise", "get_sunrise", "sun_times"),
        ("When the sun rises.", "Sunrise in a city in a month.", "Get the sunrise."),
        (_CITY, Parameter("month", ("month", "when", "time_of_year"), _of(MONTHS))),
        (
            "When does the sun rise in {city} in {month}?", "Sunrise in {city} in {month}?",
            "Tell me the sunrise in {city} for {month}.", "At what time is sunrise in {city} in {month}?",
            "How early does the sun rise in {city} in {month}?", "Get the sunrise of {city} in {month}.",
            "When is sunrise in {month} in {city}?", "Sunrise time for {city}, {month}.",
        ),
        ("In {month}, when does the sun come up in {city}?", "Look up the sunrise in {city} for {month}."), _clock,
    ),
}  # fmt: skip

HELD_OUT_KINDS: dict[str, Kind] = {
    "route": Kind(
        ("find_route", "route", "directions"), ("Find a route between two cities.",),
        (
            Parameter("start", ("start", "origin", "source"), _of(TOWNS)),
            Parameter("end", ("goal", "destination", "end"), _of(TOWNS)),
        ),
        (
            "How do I get from {start} to {end}?", "Find a route from {start} to {end}.",
            "Show me the way from {start} to {end}.",
        ),
        (), _amount,
    ),
    "order": Kind(
        ("order_food", "order", "buy_food"), ("Order something to eat.",),
        (
            Parameter("dish", ("dish", "food", "meal"), _of(DISHES)),
            Parameter("count", ("count", "number", "quantity"), _number(1, 9), "integer"),
        ),
        ("Order {count} times {dish}.", "I want {dish} {count} times.", "Buy food: {dish}, {count} of it."), (),
        _of(DONE),
    ),
    "heating": Kind(
        ("set_temperature", "heating", "set_heating"), ("Set the temperature of a room.",),
        (
            Parameter("room", ("room", "zone", "space"), _of(ROOMS)),
            Parameter("degrees", ("degrees", "temperature", "level"), _number(10, 30), "integer"),
        ),
        (
            "Set the {room} to {degrees} degrees.", "Heat the {room} to {degrees} degrees.",
            "I want {degrees} degrees in the {room}.",
        ),
        (), _of(DONE),
    ),
    "job": Kind(
        ("find_worker", "hire", "job_search"), ("Find somebody who does a job.",),
        (Parameter("job", ("job", "profession", "work"), _of(JOBS)), _CITY),
        ("Find a {job} in {city}.", "I need a {job} in {city}.", "Is there a {job} in {city}?"), (), _of(NAMES),
    ),
}  # fmt: skip
