"""What the browser shows: conversations, the messages they are drawn with, and the tab that holds them."""
