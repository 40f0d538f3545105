"""What people and programs call: the page, its endpoints, and the model behind them."""
