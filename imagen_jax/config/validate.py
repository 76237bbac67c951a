"""Refusals shared by every config dataclass."""


def require(condition: bool, message: str) -> None:
    """Refuse an illegal combination of fields with a sentence that names them."""
    if not condition:
        raise ValueError(message)


def require_divides(divisor: int, number: int, divisor_name: str, number_name: str) -> None:
    """Refuse a number that its divisor does not divide, naming both."""
    require(
        divisor > 0 and number % divisor == 0,
        f"{number_name}={number} does not divide by {divisor_name}={divisor}",
    )
