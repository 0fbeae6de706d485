-- Takes V2.0.0 back. What only version 2 wrote is lost: forecasts, recommendations, sentiments.
DROP TRIGGER posts_judge ON posts;
DROP FUNCTION judge();
ALTER TABLE posts DROP COLUMN sentiment;
DROP TABLE recommendations;
DROP TABLE forecasts;
